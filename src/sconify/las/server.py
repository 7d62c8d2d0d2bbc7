"""The server of a LAS: one JSON object a line, over TCP and unix sockets (docs/protocol.md section 6).

Anybody who reaches a socket may ask, so a caller can take little: a line and the time that it takes are limited, and of
more connections than the limit the one that has been silent longest is closed, so that idle ones lock nobody out.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sconify import __version__
from sconify.errors import SconifyError, ServiceError, UntrustedDataError
from sconify.las.peer import measure_peer
from sconify.las.provider import Provider

MAX_LINE = 4096
"""Bytes of a request; one for evidence has about 260."""
LINE_TIMEOUT = 30.0
"""Seconds until a whole line must have come."""
MAX_CONNECTIONS = 128

_BACKLOG = 128

_log = logging.getLogger(__name__)


class LasServer:
    """Answers requests for evidence until it is stopped.

    Args:
        providers: Where evidence is from; the first one answers requests, as they name no kind.
        line_timeout: Seconds until a whole request must have come.
        max_connections: Connections that are open at once.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        line_timeout: float = LINE_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._providers = providers
        self._line_timeout = line_timeout
        self._max_connections = max_connections
        self._listeners: list[socket.socket] = []
        self._paths: list[Path] = []
        self._threads: list[threading.Thread] = []
        self._stopping = False
        self._lock = threading.Lock()
        self._connections: OrderedDict[socket.socket, None] = OrderedDict()  # the longest silent one first

    def listen_tcp(self, host: str, port: int) -> int:
        """Bind a TCP address.

        Returns:
            The port, which matters when 0 was asked for.

        Raises:
            ServiceError: The address can't be bound.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            raise ServiceError(
                f"the LAS can't listen on {host}:{port}: {(error.strerror or str(error)).lower()}",
                remedy="give another --listen=HOST:PORT, or stop what listens there",
            ) from None
        self._listeners.append(listener)
        bound: int = listener.getsockname()[1]
        return bound

    def listen_unix(self, path: Path) -> None:
        """Bind a unix socket that every local user may connect to; one that a dead server left is replaced.

        Raises:
            ServiceError: A server listens there, or the path can't be bound.
        """
        listener = socket.socket(socket.AF_UNIX)
        try:
            if path.is_socket() and not _is_served(path):
                path.unlink()
            listener.bind(str(path))
            path.chmod(0o666)  # as over TCP: evidence tells who runs, it is no secret
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            raise ServiceError(
                f"the LAS can't listen on {path}: {(error.strerror or str(error)).lower()}",
                remedy="give another --socket=PATH, or stop what listens there",
            ) from None
        self._listeners.append(listener)
        self._paths.append(path)

    def start(self) -> None:
        """Begin to answer, in threads of its own."""
        for listener in self._listeners:
            thread = threading.Thread(target=self._accept, args=[listener], daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Close every socket and wait until nobody is waited for; unix sockets are removed."""
        self._stopping = True
        for listener in self._listeners:
            _shut_down(listener)
        for thread in self._threads:
            thread.join()
        for listener in self._listeners:
            listener.close()
        with self._lock:
            for connection in self._connections:
                _shut_down(connection)
        for path in self._paths:
            path.unlink(missing_ok=True)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._stopping:
                    return
                _log.warning("a connection could not be taken: %s", error.strerror)  # such as: too many open files
                time.sleep(0.1)
                continue
            with self._lock:
                if len(self._connections) >= self._max_connections:
                    silent, _ = self._connections.popitem(last=False)
                    _shut_down(silent)
                self._connections[connection] = None
            threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        peer = _peer(connection)
        try:
            pending = b""
            while True:
                line, pending = self._read_line(connection, pending)
                with self._lock:
                    if connection in self._connections:
                        self._connections.move_to_end(connection)
                connection.sendall(json.dumps(self._answer(line, connection, peer)).encode() + b"\n")
        except _NoLineError as end:
            if end.reason:
                _log.warning("%s: %s; closed", peer, end.reason)
                _say_last(connection, end.reason)
        except OSError:
            _log.debug("%s: gone", peer)
        finally:
            with self._lock:
                self._connections.pop(connection, None)
                connection.close()

    def _read_line(self, connection: socket.socket, pending: bytes) -> tuple[bytes, bytes]:
        """Return the next line, and what came behind it."""
        deadline = time.monotonic() + self._line_timeout
        while b"\n" not in pending:
            if len(pending) > MAX_LINE:
                raise _NoLineError(f"the request is longer than {MAX_LINE} bytes")
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                block = connection.recv(MAX_LINE)
            except TimeoutError:
                raise _NoLineError(f"no whole request came within {self._line_timeout:g} s") from None
            if not block:
                raise _NoLineError("the request is not whole" if pending else None)
            pending += block
        line, pending = pending.split(b"\n", 1)
        if len(line) > MAX_LINE:
            raise _NoLineError(f"the request is longer than {MAX_LINE} bytes")
        return line, pending

    def _answer(self, line: bytes, connection: socket.socket, peer: str) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        match request:
            case {"op": "info", **rest} if not rest:
                return {"kinds": [provider.kind for provider in self._providers], "version": __version__}
            case {"op": "evidence", "report_data": str(data), "measurement": str(measurement), **rest} if (
                not rest and re.fullmatch(r"[0-9a-f]{128}", data) and re.fullmatch(r"[0-9a-f]{64}", measurement)
            ):
                return self._evidence(bytes.fromhex(data), bytes.fromhex(measurement), connection, peer)
        _log.warning("%s: not a request", peer)
        return {
            "error": 'not a request: expected {"op": "info"}, or {"op": "evidence", "report_data": "<128 hex>", '
            '"measurement": "<64 hex>"}'
        }

    def _evidence(
        self, report_data: bytes, measurement: bytes, connection: socket.socket, peer: str
    ) -> Mapping[str, Any]:
        provider = self._providers[0]
        try:
            if provider.measures_callers:
                _check_measurement(connection, measurement)
            evidence = provider.evidence(report_data=report_data, measurement=measurement)
        except SconifyError as error:
            _log.warning("%s: no evidence: %s", peer, error)
            return {"error": f"no evidence: {error}"}
        _log.info("%s: %s evidence for measurement %s", peer, provider.kind, measurement.hex())
        return {"evidence": evidence}


class _NoLineError(Exception):
    """A connection gives no further request; ``reason`` is None when it just ended."""

    def __init__(self, reason: str | None) -> None:
        super().__init__(reason)
        self.reason = reason


def _check_measurement(connection: socket.socket, claimed: bytes) -> None:
    """Measure who asks; what it claims to be must be what it is."""
    measured = measure_peer(connection).measurement
    if measured != claimed:
        raise UntrustedDataError(f"the caller claims to be {claimed.hex()}, but is {measured.hex()}")


def _peer(connection: socket.socket) -> str:
    """Name who asks: over a unix socket the kernel tells process and user."""
    if connection.family == socket.AF_UNIX:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        return f"pid {pid} uid {uid}"
    try:
        return str(connection.getpeername()[0])
    except OSError:
        return "a peer that is gone"


def _say_last(connection: socket.socket, reason: str) -> None:
    try:
        connection.settimeout(1.0)
        connection.sendall(json.dumps({"error": reason}).encode() + b"\n")
    except OSError:
        return  # it has ended already


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def _shut_down(connection: socket.socket) -> None:
    """Wake the thread that waits for this socket: it then sees its end."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already
