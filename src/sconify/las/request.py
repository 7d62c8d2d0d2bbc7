"""Ask a LAS for evidence."""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from typing import Any

from sconify.errors import ServiceError, UserError

DEFAULT_PORT = 18766

_MAX_ANSWER = 128 * 1024  # a quote has at most 32 KiB, in JSON a third more


@dataclass(frozen=True)
class LasAddress:
    """Where a LAS listens: a host and port, or the path of a unix socket."""

    host: str | None
    port: int
    path: str | None

    @classmethod
    def parse(cls, text: str) -> LasAddress:
        """Read ``host[:port]`` (``[address]:port`` for IPv6) or ``unix:/path``.

        Raises:
            UserError: The text is neither.
        """
        if text.startswith("unix:/"):
            return cls(None, 0, text.removeprefix("unix:"))
        match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?", text)
        port = int(match[3]) if match and match[3] else DEFAULT_PORT
        if match is None or port > 65535:
            raise UserError(f"{text!r} is no address of a LAS", remedy="give HOST, HOST:PORT or unix:/PATH")
        return cls(match[1] or match[2], port, None)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if self.host and ":" in self.host else f"{self.host}:{self.port}"


def request_evidence(
    address: LasAddress, *, report_data: bytes, measurement: bytes, timeout: float = 10.0
) -> dict[str, Any]:
    """Ask a LAS for evidence (docs/protocol.md section 6).

    Args:
        address: The LAS.
        report_data: What the evidence shall bind, 64 bytes.
        measurement: What the caller runs, 32 bytes.
        timeout: Seconds that it may take as a whole.

    Returns:
        The evidence as the LAS gave it. Nothing about it is checked.

    Raises:
        ServiceError: The LAS can't be reached, is too slow, refused, or is no LAS.
    """
    answer = _ask(
        address, {"op": "evidence", "report_data": report_data.hex(), "measurement": measurement.hex()}, timeout
    )
    evidence = answer.get("evidence")
    if not isinstance(evidence, dict):
        raise ServiceError(f"LAS at {address} answered without evidence", remedy="check the address")
    return evidence


def request_info(address: LasAddress, *, timeout: float = 10.0) -> dict[str, Any]:
    """Ask a LAS which kinds of evidence it offers.

    Returns:
        ``{"kinds": [...], "version": "..."}``.

    Raises:
        ServiceError: The LAS can't be reached, is too slow, refused, or is no LAS.
    """
    answer = _ask(address, {"op": "info"}, timeout)
    if not isinstance(answer.get("kinds"), list):
        raise ServiceError(f"LAS at {address} answered without its kinds of evidence", remedy="check the address")
    return answer


def _ask(address: LasAddress, question: dict[str, str], timeout: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    try:
        with _connect(address, timeout) as connection:
            connection.sendall(json.dumps(question).encode() + b"\n")
            line = _read_line(connection, deadline)
    except TimeoutError:
        raise ServiceError(f"LAS at {address} did not answer within {timeout:g} s", remedy="see its log") from None
    except OSError as error:
        raise ServiceError(
            f"LAS at {address} can't be reached: {(error.strerror or str(error)).lower()}",
            remedy="start one with `sconify las serve`, or name another",
        ) from None
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ServiceError(f"the server at {address} is no LAS: its answer is no JSON object", remedy="check the port")
    if "error" in answer:
        text = "".join(c if c.isprintable() else "?" for c in str(answer["error"])[:500])
        raise ServiceError(f"LAS at {address} refused: {text}", remedy="see its log")
    return answer


def _connect(address: LasAddress, timeout: float) -> socket.socket:
    if address.path is None:
        return socket.create_connection((address.host, address.port), timeout=timeout)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_ANSWER:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        block = connection.recv(4096)
        if not block:
            break
        line += block
    return line
