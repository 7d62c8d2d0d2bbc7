"""A CAS and a LAS that speak docs/protocol.md to the runtime, and that tests can make lie."""

from __future__ import annotations

import base64
import contextlib
import datetime
import hashlib
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jwe, jws
from joserfc.jwk import ECKey

CONFIG_ID = "example/flask/service"
TOKEN = "the-token"
EVIDENCE = {"kind": "simulated", "version": 1}

Answer = tuple[int, bytes]
"""Status and body."""


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def lp(data: bytes) -> bytes:
    """Return the data with its length before it."""
    return len(data).to_bytes(4, "big") + data


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def public_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return {"kty": "EC", "crv": "P-256", "x": encode(point[1:33]), "y": encode(point[33:])}


def key_hash(key: ec.EllipticCurvePrivateKey) -> str:
    return hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def certificate(key: ec.EllipticCurvePrivateKey, directory: Path) -> Path:
    """Write a self-signed certificate, long expired and for another name: neither counts."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody")])
    long_ago = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(long_ago)
        .not_valid_after(long_ago + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{key_hash(key)}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + made.public_bytes(Encoding.PEM))
    return path


@dataclass
class Cas:
    """An honest CAS; replace what is to lie before the runtime is started."""

    directory: Path
    key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    tls_key: ec.EllipticCurvePrivateKey | None = None
    """The key of the TLS certificate, if it is not the CAS key."""
    signing_key: ec.EllipticCurvePrivateKey | None = None
    recipient: ec.EllipticCurvePublicKey | None = None
    """Whom to encrypt to, if not who asks."""
    change: Callable[[dict[str, Any]], object] = lambda _configuration: None
    """Changes the configuration before it is signed."""
    answer: Callable[[str, dict[str, Any], Answer], Answer | bytes] = lambda _path, _request, answer: answer
    """Replaces an answer, by another one or by the raw bytes of the HTTP response."""
    sealed: str | None = None
    """What stands for the sealed configuration."""
    newest_tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
    requests: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    """Path, headers and body of each."""

    nonce = bytes(range(32))

    def configuration(self) -> dict[str, Any]:
        return {
            "format": "sconify-config/1",
            "config_id": CONFIG_ID,
            "nonce": encode(self.nonce),
            "command": ["app", "secret-argument"],
            "environment": {"SECRET": "secret-variable"},
            "pwd": "/",
            "file_system": {"path": "/nowhere/index", "key": "0f" * 32, "tag": "a0" * 16},
            "injection_files": [],
        }

    def respond(self, path: str, request: dict[str, Any]) -> Answer:
        if path == "/v1/challenge":
            return 200, json.dumps({"nonce": encode(self.nonce), "expires_in": 60}).encode()
        if path == "/v1/attest":
            answer = {"sealed": self.sealed or self.seal(request["public_key"]), "session_token": TOKEN}
            return 200, json.dumps(answer).encode()
        if path == "/v1/renew":
            return 200, json.dumps({"expires_in": 1}).encode()
        return (204, b"") if path == "/v1/exit" else (404, b"{}")

    def seal(self, public_key: dict[str, str]) -> str:
        configuration = self.configuration()
        self.change(configuration)
        signing = self.signing_key or self.key
        header = {"alg": "ES256", "jwk": public_jwk(signing.public_key())}
        signed = jws.serialize_compact(header, json.dumps(configuration).encode(), ECKey.import_key(signing))
        recipient = ECKey.import_key(self.recipient or {**public_key})
        return jwe.encrypt_compact(
            {"alg": "ECDH-ES", "enc": "A256GCM", "typ": "sconify-config"}, signed.encode(), recipient
        )

    @contextlib.contextmanager
    def serving(self, port: int = 0) -> Iterator[int]:
        """Serve on the loopback interface; yields the port."""
        cas = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate(self.tls_key or self.key, self.directory))
        context.maximum_version = self.newest_tls

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    connection = context.wrap_socket(self.request, server_side=True)
                    with connection, connection.makefile("rb") as lines:
                        while line := lines.readline():
                            cas._one(line.split()[1].decode(), lines, connection)

        with _serving(Handler, port) as port:
            yield port

    def _one(self, path: str, lines: Any, connection: socket.socket) -> None:
        headers: dict[str, str] = {}
        while line := lines.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        body = lines.read(int(headers["content-length"]))
        request = json.loads(body) if body else {}
        self.requests.append((path, headers, request))
        answer = self.answer(path, request, self.respond(path, request))
        if isinstance(answer, bytes):
            connection.sendall(answer)
            connection.shutdown(socket.SHUT_RDWR)
            return
        status, body = answer
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


@dataclass
class Las:
    """A LAS that answers each line with ``answer``."""

    answer: bytes = json.dumps({"evidence": EVIDENCE}).encode() + b"\n"
    requests: list[dict[str, Any]] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """Serve on the loopback interface; yields the port."""
        las = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                las.requests.append(json.loads(self.rfile.readline()))
                self.wfile.write(las.answer)

        with _serving(Handler, 0) as port:
            yield port


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


@contextlib.contextmanager
def _serving(handler: type[socketserver.BaseRequestHandler], port: int) -> Iterator[int]:
    with _Server(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
