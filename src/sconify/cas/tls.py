"""TLS for cheroot by pyOpenSSL: accepts any self-signed client certificate, and ends slow connections.

Python's ``ssl`` can't accept client certificates that no known authority signed. Here the identity of a client is its
public key: TLS proves that the client holds the private key, and nothing else of the certificate counts.
"""

from __future__ import annotations

import _pyio  # type: ignore[import-not-found]
import errno
import io
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from cheroot.errors import FatalSSLAlert
from cheroot.makefile import StreamReader, StreamWriter
from cheroot.server import HTTPConnection
from cheroot.ssl import Adapter
from cryptography.exceptions import UnsupportedAlgorithm
from OpenSSL import SSL

from sconify.cas.http import PEER_KEY
from sconify.cas.keys import CasKey
from sconify.policy.keyhash import spki_der

_T = TypeVar("_T")

REQUEST_SECONDS = 10.0
"""Within this time a request must be read and its answer taken, however many bytes trickle in."""

_NO_RENEGOTIATION = 1 << 30  # SSL_OP_NO_RENEGOTIATION (openssl/ssl.h)


class TlsAdapter(Adapter):
    """Wraps the connections of a cheroot server in TLS 1.2 or 1.3.

    Args:
        key: The CAS key and its certificate.
        ask_for_certificate: Whether clients are asked for a certificate (they may still have none).
    """

    def __init__(self, key: CasKey, *, ask_for_certificate: bool) -> None:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(b"ECDHE+AESGCM:ECDHE+CHACHA20")
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | _NO_RENEGOTIATION)
        # Without resumption each connection proves its certificate anew.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.use_privatekey(key.private)
        context.use_certificate(key.certificate)
        if ask_for_certificate:
            context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        self.context = context

    def bind(self, sock: socket.socket) -> socket.socket:
        """Return the listening socket, in plain: TLS begins with each connection."""
        return _Listening(fileno=sock.detach())

    def wrap(self, sock: socket.socket) -> tuple[TlsStream, dict[str, Any]]:
        """Return the connection in TLS, and the part of the WSGI environment that its handshake will fill in."""
        environ: dict[str, Any] = {"wsgi.url_scheme": "https", "HTTPS": "on"}
        return TlsStream(self.context, sock, environ), environ

    def get_environ(self) -> dict[str, Any]:
        """Return nothing: ``wrap`` gives each connection its own."""
        return {}

    def makefile(self, sock: TlsStream, mode: str = "r", bufsize: int = io.DEFAULT_BUFFER_SIZE) -> Any:
        """Return a reader or writer of a connection, as cheroot wants them."""
        return _Reader(sock, bufsize) if "r" in mode else _Writer(sock, bufsize)


class _Listening(socket.socket):
    """A listening socket that waits when the process has no descriptors left, until idle connections are closed."""

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            time.sleep(0.05)
            raise TimeoutError("timed out") from error  # what cheroot takes for "nobody has come"


class TlsStream:
    """One TLS connection with a deadline for each request. The handshake happens at the first read.

    A connection that fails or is too slow raises ``FatalSSLAlert``, at which cheroot drops it without a word.

    Args:
        context: The server's TLS context.
        sock: The accepted connection.
        environ: Gets the client's public key under ``PEER_KEY`` after the handshake.
    """

    def __init__(self, context: SSL.Context, sock: socket.socket, environ: dict[str, Any]) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._connection = SSL.Connection(context, sock)
        self._connection.set_accept_state()
        self._environ = environ
        self._shaken = False
        self.begin_request()

    def begin_request(self) -> None:
        """Let the time of a request begin."""
        self._deadline = time.monotonic() + REQUEST_SECONDS

    def receive(self, size: int) -> bytes:
        """Return at most ``size`` decrypted bytes, none at the end."""
        if not self._shaken:
            self._shake_hands()
        try:
            return self._run(lambda: self._connection.recv(size))
        except SSL.ZeroReturnError:
            return b""

    def send(self, data: bytes) -> int:
        """Encrypt and send bytes; return how many."""
        return self._run(lambda: self._connection.send(data))

    def pending(self) -> bool:
        """Tell whether decrypted bytes wait that the socket no longer shows."""
        return self._shaken and self._connection.pending() > 0

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def settimeout(self, _seconds: float | None) -> None:
        """Keep the deadline: cheroot's own timeout begins anew with each byte."""

    def getsockname(self) -> Any:
        """Return the local address."""
        return self._socket.getsockname()

    def shutdown(self, how: int) -> None:
        """Say goodbye and end the connection, if the client is still there."""
        with suppress(SSL.Error, OSError):
            if self._shaken:
                self._connection.shutdown()
        with suppress(OSError):
            self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _shake_hands(self) -> None:
        self._run(self._connection.do_handshake)
        try:
            certificate = self._connection.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                self._environ[PEER_KEY] = spki_der(certificate.public_key())
        except (ValueError, UnsupportedAlgorithm) as error:
            raise FatalSSLAlert("the client's certificate can't be read") from error
        self._shaken = True

    def _run(self, operation: Callable[[], _T]) -> _T:
        while True:
            try:
                return operation()
            except SSL.WantReadError:
                self._wait(select.POLLIN)
            except SSL.WantWriteError:
                self._wait(select.POLLOUT)
            except SSL.ZeroReturnError:
                raise
            except SSL.Error as error:
                raise FatalSSLAlert("TLS failed, or the client went away") from error

    def _wait(self, event: int) -> None:
        remaining = self._deadline - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, event)
        if remaining <= 0 or not poll.poll(1000 * remaining):
            raise FatalSSLAlert("the client is too slow")


class DeadlineConnection(HTTPConnection):
    """A cheroot connection whose requests each have a deadline."""

    def communicate(self) -> Any:
        """Read one request and answer it, in time."""
        self.socket.begin_request()
        return super().communicate()  # type: ignore[no-untyped-call]


class _Raw(io.RawIOBase):
    """A stream as Python's buffered files want it; closing it leaves the stream open."""

    def __init__(self, stream: TlsStream) -> None:
        self.stream = stream

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.stream.receive(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        return self.stream.send(bytes(data))


class _Reader(StreamReader):
    """Cheroot's reader over a stream that is no socket."""

    def __init__(self, stream: TlsStream, bufsize: int) -> None:
        _pyio.BufferedReader.__init__(self, _Raw(stream), bufsize)
        self.bytes_read = 0

    def has_data(self) -> bool:
        """Tell whether bytes wait that the socket does not show."""
        raw: Any = self.raw
        return bool(super().has_data()) or raw.stream.pending()  # type: ignore[no-untyped-call]


class _Writer(StreamWriter):
    """Cheroot's writer over a stream that is no socket."""

    def __init__(self, stream: TlsStream, bufsize: int) -> None:
        _pyio.BufferedWriter.__init__(self, _Raw(stream), bufsize)
        self.bytes_written = 0
