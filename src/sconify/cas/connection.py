"""One HTTPS request to a CAS whose certificate is self-signed: the server is known by its key, never by its name.

Names and validity of the certificate do not count (docs/protocol.md section 4), so the usual certificate check is off.
In its place stands the check of the key, after the handshake, which proved that the server holds it, and before the
first byte of the request is sent.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from sconify.cas.attested import CasAddress
from sconify.cas.identity import Identity
from sconify.errors import ServiceError, UntrustedDataError, UserError
from sconify.policy.keyhash import encode_key_hash, spki_der

DEFAULT_TIMEOUT = 30.0
DEFAULT_RETRIES = 3
RETRIES_VARIABLE = "SCONE_CLI_RETRIES"

_MAX_ANSWER = 4 * 1024 * 1024  # a session is at most 1 MiB; JSON may double it
_MAX_CAUSES = 16
_MAX_CAUSE = 2000
_RETRY_DELAY = 0.3
_START_REMEDY = "start one with `sconify cas serve`, or give --cas=HOST:PORT"


class CasRefusedError(UserError):
    """The CAS understood a request and refused it; ``status`` is the HTTP status."""

    def __init__(self, what: str, *, status: int, remedy: str | None) -> None:
        super().__init__(what, remedy=remedy)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What a CAS answered: a JSON object, and the certificate that the server showed on this connection."""

    document: dict[str, Any]
    certificate: x509.Certificate


@dataclass(frozen=True)
class _Message:
    method: str
    path: str
    body: bytes | None = field(repr=False)
    content_type: str


class CasConnection:
    """Sends requests to the client API of one CAS, each over its own connection.

    Args:
        address: Where the CAS listens.
        identity: Shown as client certificate; None shows none.
        key_sha256: The only server key that is accepted; None accepts any, which is for attestation alone.
        timeout: Seconds that a request may take as a whole.
        retries: How often a CAS that can't be reached is tried again; None takes SCONE_CLI_RETRIES, or 3.
    """

    def __init__(
        self,
        address: CasAddress,
        *,
        identity: Identity | None,
        key_sha256: bytes | None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: int | None = None,
    ) -> None:
        self.address = address
        self._expected_key = key_sha256
        self._timeout = timeout
        self._retries = _retries_from_environment() if retries is None else retries
        self._context = _tls_context(identity)

    def request(
        self, method: str, path: str, *, body: bytes | None = None, content_type: str = "application/yaml"
    ) -> Answer:
        """Send one request and return its answer.

        Only a connection that could not be made is tried again: a request that was sent may have been acted on.

        Raises:
            CasRefusedError: The CAS refused the request.
            UntrustedDataError: The server has another key than the expected one.
            ServiceError: The CAS can't be reached, is too slow, failed, or is no CAS.
        """
        deadline = time.monotonic() + self._timeout
        for retries_left in range(self._retries, -1, -1):
            try:
                raw = self._connect(deadline)
                break
            except OSError as error:
                unreachable = ServiceError(
                    f"CAS at {self.address} can't be reached: {_reason(error)}", remedy=_START_REMEDY
                )
                if not retries_left or isinstance(error, TimeoutError) or time.monotonic() + _RETRY_DELAY > deadline:
                    raise unreachable from None
                time.sleep(_RETRY_DELAY)
        # The clock of a socket starts anew with each byte that arrives; this one does not. TLS takes the descriptor
        # over, so the watchdog has one of its own.
        with raw, raw.dup() as guard:
            watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), _shut_down, [guard])
            watchdog.daemon = True
            watchdog.start()
            try:
                return self._guarded_exchange(raw, _Message(method, path, body, content_type), deadline)
            finally:
                watchdog.cancel()

    def _guarded_exchange(self, raw: socket.socket, message: _Message, deadline: float) -> Answer:
        try:
            return self._exchange(raw, message)
        except TimeoutError:
            raise self._too_slow() from None
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() >= deadline:
                raise self._too_slow() from None
            raise ServiceError(
                f"the server at {self.address} is no CAS, or the connection broke: {_reason(error)}",
                remedy="check host and port: the client API of a CAS has port 8081 unless it was set otherwise",
            ) from None

    def _connect(self, deadline: float) -> socket.socket:
        remaining = max(0.001, deadline - time.monotonic())
        return socket.create_connection((self.address.host, self.address.port), timeout=remaining)

    def _exchange(self, raw: socket.socket, message: _Message) -> Answer:
        with self._context.wrap_socket(raw, server_hostname=_server_name(self.address)) as tls:
            der = tls.getpeercert(binary_form=True)
            if der is None:
                raise ssl.SSLError("the server showed no certificate")
            try:
                certificate = x509.load_der_x509_certificate(der)
                spki = spki_der(certificate.public_key())
            except (ValueError, UnsupportedAlgorithm):
                raise ssl.SSLError("the server's certificate can't be read") from None
            self._check_key(hashlib.sha256(spki).digest())
            connection = http.client.HTTPConnection(self.address.host, self.address.port)
            connection.sock = tls
            headers = {"Accept": "application/json", "Connection": "close"}
            if message.body is not None:
                headers["Content-Type"] = message.content_type
            connection.request(message.method, message.path, body=message.body, headers=headers)
            response = connection.getresponse()
            content = response.read(_MAX_ANSWER + 1)
            if len(content) > _MAX_ANSWER:
                raise http.client.HTTPException(f"its answer is larger than {_MAX_ANSWER} bytes")
            if response.length:
                raise http.client.HTTPException("its answer is cut off")
            return Answer(self._parse(response.status, content), certificate)

    def _check_key(self, got: bytes) -> None:
        if self._expected_key is not None and got != self._expected_key:
            raise UntrustedDataError(
                f"the server at {self.address} has not the key of the attested CAS: "
                f"got {encode_key_hash(got)}, expected {encode_key_hash(self._expected_key)}",
                remedy="somebody may be in between: check the address and ask the owner of the CAS; if it was set up "
                f"anew, run `sconify cas forget {self.address}` and attest it again",
            )

    def _parse(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise http.client.HTTPException(f"its answer (HTTP status {status}) is no JSON object")
        if 200 <= status < 300:
            return document
        raise self._refusal(status, document) from _cause_chain(document)

    def _refusal(self, status: int, document: dict[str, Any]) -> ServiceError | UserError:
        messages = _messages(document)
        what = f"the CAS at {self.address} answered with HTTP status {status}" if not messages else messages[0]
        remedy = document.get("remedy")
        remedy = printable(remedy) if isinstance(remedy, str) else None
        if 400 <= status < 500:
            return CasRefusedError(f"the CAS at {self.address} refused: {what}", status=status, remedy=remedy)
        return ServiceError(f"the CAS at {self.address} failed: {what}", remedy=remedy or "see the log of the CAS")

    def _too_slow(self) -> ServiceError:
        return ServiceError(
            f"CAS at {self.address} did not answer within {self._timeout:g} s",
            remedy="check the address and the load of the CAS, then try again",
        )


def printable(text: str) -> str:
    """Return text from a server so that it can't steer a terminal or flood it."""
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_CAUSE])


def _messages(document: dict[str, Any]) -> list[str]:
    messages = document.get("msg")
    if not isinstance(messages, list):
        return []
    return [printable(message) for message in messages[:_MAX_CAUSES] if isinstance(message, str)]


def _cause_chain(document: dict[str, Any]) -> BaseException | None:
    """Make the server's inner causes the ``__cause__`` of our error, outermost first."""
    chain: BaseException | None = None
    for message in reversed(_messages(document)[1:]):
        outer = ServiceError(message)
        outer.__cause__ = chain
        chain = outer
    return chain


def _tls_context(identity: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the key is checked instead, see above
    if identity is not None:
        # OpenSSL reads keys from files only; this one is in memory alone.
        descriptor = os.memfd_create("identity")
        try:
            pem = memoryview(identity.private_pem())
            while pem:
                pem = pem[os.write(descriptor, pem) :]
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        finally:
            os.close(descriptor)
    return context


def _server_name(address: CasAddress) -> str | None:
    """The name for SNI, which must not be an IP address."""
    return None if re.fullmatch(r"[0-9.]+|.*:.*", address.host) else address.host


def _retries_from_environment() -> int:
    text = os.environ.get(RETRIES_VARIABLE, str(DEFAULT_RETRIES))
    if not re.fullmatch(r"\d{1,3}", text):
        raise UserError(f"{RETRIES_VARIABLE} is {text!r}", remedy="set it to a number from 0 to 999, or unset it")
    return int(text)


def _reason(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {printable(error.reason or str(error))}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return printable(str(error)) or type(error).__name__


def _shut_down(connection: socket.socket) -> None:
    """End a connection under a thread that waits for it, which then sees the end of the stream."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already
