"""The addresses of this machine's container bridges: what containers on them have as default gateway."""

from __future__ import annotations

import fcntl
import re
import socket
import struct
from pathlib import Path

_SIOCGIFADDR = 0x8915
_BRIDGE = re.compile(r"docker\d+|br-.+|podman\d+|cni\d+|cni-.+|nerdctl\d+")
_NAME_SIZE = 15  # IFNAMSIZ without the closing NUL
_ADDRESS = slice(20, 24)  # sin_addr of the sockaddr_in behind the 16 bytes of the name


def bridge_addresses(interfaces: Path = Path("/sys/class/net")) -> list[str]:
    """Return the IPv4 addresses of the bridges of Docker, podman and CNI, sorted; empty when there is none.

    Args:
        interfaces: The kernel's directory of network interfaces.
    """
    try:
        names = [path.name for path in interfaces.iterdir() if (path / "bridge").is_dir()]
    except OSError:
        return []
    addresses = {_address(name) for name in names if _BRIDGE.fullmatch(name)}
    return sorted(address for address in addresses if address is not None)


def _address(name: str) -> str | None:
    request = struct.pack("40s", name.encode()[:_NAME_SIZE])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, request)
        except OSError:
            return None  # it has no IPv4 address, or is gone
    return socket.inet_ntoa(answer[_ADDRESS])
