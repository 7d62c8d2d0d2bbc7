"""The other end of a unix socket, as the kernel knows it (sock_diag(7))."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from pathlib import Path

from sconify.errors import UntrustedDataError

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY = 4, 20  # linux/netlink.h, linux/sock_diag.h
_UDIAG_SHOW_PEER, _UNIX_DIAG_PEER = 4, 2  # linux/unix_diag.h
_NLM_F_REQUEST = 1
_CLONE_NEWNET = 0x4000_0000
_LIBC = ctypes.CDLL(None, use_errno=True)


def peer_inode(connection: socket.socket, *, pid: int) -> int:
    """Return the inode of the socket at the other end.

    Args:
        connection: An accepted connection.
        pid: The process that connected: an accepted socket belongs to the network namespace of who connected.

    Raises:
        UntrustedDataError: There is no other end any more.
        OSError: The kernel does not tell, or its namespace can't be entered.
    """
    inode = os.fstat(connection.fileno()).st_ino & 0xFFFF_FFFF
    any_cookie = 0xFFFF_FFFF
    request = struct.pack(
        "=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFF_FFFF, inode, _UDIAG_SHOW_PEER, any_cookie, any_cookie
    )
    header = struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with _netlink(pid) as netlink:
        netlink.settimeout(1.0)
        netlink.send(header + request)
        answer = netlink.recv(65536)
    length, kind = struct.unpack_from("=IH", answer)
    at = 16 + 16  # nlmsghdr, unix_diag_msg
    while kind == _SOCK_DIAG_BY_FAMILY and at + 4 <= min(length, len(answer)):
        size, attribute = struct.unpack_from("=HH", answer, at)
        if attribute == _UNIX_DIAG_PEER and size == 8:
            (peer,) = struct.unpack_from("=I", answer, at + 4)
            return int(peer)
        if size < 4:
            break
        at += (size + 3) & ~3
    raise UntrustedDataError("the caller is gone: nobody holds the other end of the connection")


def _netlink(pid: int) -> socket.socket:
    """Return a netlink socket in the network namespace of a process."""
    theirs = Path(f"/proc/{pid}/ns/net")
    if os.path.samestat(theirs.stat(), Path("/proc/self/ns/net").stat()):
        return _open_netlink()
    made: list[socket.socket | OSError] = []
    descriptor = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # A namespace is entered by one thread only; this one does nothing else, and ends.
        thread = threading.Thread(target=_make_in_namespace, args=[descriptor, made])
        thread.start()
        thread.join()
    finally:
        os.close(descriptor)
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _make_in_namespace(descriptor: int, made: list[socket.socket | OSError]) -> None:
    try:
        if _LIBC.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        made.append(_open_netlink())
    except OSError as error:
        made.append(error)


def _open_netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
