"""Who asks over a unix socket, and what it runs: measured by the LAS itself, as the kernel shows it.

The kernel tells which process connected (SO_PEERCRED). Such a process could hand its connection on, or become another
program while somebody else keeps the connection. So three things must hold, besides that the process lives on:

1. its executable is a sconified binary, which is hashed here, with the start-up variables of its environment;
2. the process itself holds the other end of this very connection;
3. that descriptor is closed by ``execve`` (FD_CLOEXEC): so the program that runs now has opened it, for nothing that
   was opened before it started can have that mark and still be there.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sconify.errors import SconifyError, ServiceError, UntrustedDataError
from sconify.las.sock_diag import peer_inode
from sconify.program.measure import measure_binary

_SO_PEERPIDFD = 77  # asm-generic/socket.h, since Linux 6.5
_PROC = Path("/proc")


@dataclass(frozen=True)
class MeasuredPeer:
    """A process that was measured while it was connected.

    Attributes:
        pid: Its number.
        uid: Its user's number.
        measurement: What it runs, 32 bytes.
    """

    pid: int
    uid: int
    measurement: bytes


def measure_peer(connection: socket.socket) -> MeasuredPeer:
    """Measure the process at the other end of a unix socket.

    Raises:
        UntrustedDataError: It is no sconified program, or the connection is not its own.
        ServiceError: It can't be measured: it is gone, of another PID namespace, or the LAS is not root.
    """
    if connection.family != socket.AF_UNIX:
        raise UntrustedDataError(
            "a caller over TCP can't be measured",
            remedy="let it connect to the LAS's unix socket (SCONE_LAS_ADDR=unix:/PATH)",
        )
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", credentials)
    if pid <= 0:
        raise ServiceError("the caller is of another PID namespace", remedy="run the LAS in the VM's own PID namespace")
    with _held(connection, pid) as alive:
        try:
            _check_holds(connection, pid)
            measurement = _measure(pid)
        except OSError as error:
            raise ServiceError(
                f"the caller can't be measured: {error.strerror}", remedy="run the LAS as root in the VM"
            ) from None
        if not alive():
            raise ServiceError("the caller is gone")
    return MeasuredPeer(pid, uid, measurement)


@contextmanager
def _held(connection: socket.socket, pid: int) -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether the process that connected has lived all the while.

    While it does, its number can't be another's.
    """
    try:
        descriptor = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError:
        descriptor = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        yield lambda: not poll.poll(0)
    finally:
        os.close(descriptor)


def _measure(pid: int) -> bytes:
    with (_PROC / str(pid) / "exe").open("rb") as opened:
        environment: dict[str, str] = {}
        for entry in (_PROC / str(pid) / "environ").read_bytes().split(b"\0"):
            name, separator, value = entry.decode("utf-8", "surrogateescape").partition("=")
            if separator:
                environment.setdefault(name, value)  # as getenv does: the first one counts
        try:
            return bytes.fromhex(measure_binary(opened, environment=environment).measurement)
        except SconifyError as error:
            raise UntrustedDataError(f"the caller is no sconified program: {error.what}") from None


def _check_holds(connection: socket.socket, pid: int) -> None:
    wanted = f"socket:[{peer_inode(connection, pid=pid)}]"
    found = False
    for descriptor in (_PROC / str(pid) / "fd").iterdir():
        try:
            if str(descriptor.readlink()) != wanted:
                continue
            information = (_PROC / str(pid) / "fdinfo" / descriptor.name).read_text()
        except FileNotFoundError:
            continue
        found = True
        flags = next(line.split()[1] for line in information.splitlines() if line.startswith("flags:"))
        if not int(flags, 8) & os.O_CLOEXEC:
            raise UntrustedDataError("the caller did not open the connection itself: it was passed on by execve")
    if not found:
        raise UntrustedDataError("the caller does not hold the connection: it was handed to another process")
