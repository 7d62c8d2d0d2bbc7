"""The addresses of this machine's container bridges: what containers on them have as default gateway."""

from __future__ import annotations

import fcntl
import re
import socket
import struct

_SIOCGIFADDR = 0x8915
# Docker and nerdctl name the bridges of networks by 12 hex digits; a `br-lan` is a way out of the machine.
_BRIDGE = re.compile(r"docker\d+|br-[0-9a-f]{12}|podman\d+|cni\d+|cni-podman\d+|nerdctl\d+")
_NAME_SIZE = 15  # IFNAMSIZ without the closing NUL
_ADDRESS = slice(20, 24)  # sin_addr of the sockaddr_in behind the 16 bytes of the name


def bridge_addresses() -> list[str]:
    """Return the IPv4 addresses of the bridges of Docker, podman, nerdctl and CNI, sorted; empty when there is none."""
    addresses = {_address(name) for _, name in socket.if_nameindex() if _BRIDGE.fullmatch(name)}
    return sorted(address for address in addresses if address is not None)


def _address(name: str) -> str | None:
    request = struct.pack("40s", name.encode()[:_NAME_SIZE])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
        except OSError:
            return None  # it has no IPv4 address, or is gone
    return socket.inet_ntoa(answer[_ADDRESS])
