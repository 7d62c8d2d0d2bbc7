"""A real CAS in a process of its own, real curl, and a client of the enclave API, for tests."""

from __future__ import annotations

import base64
import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwe, jws
from joserfc.jwk import ECKey

from sconify.attestation import simulated
from sconify.attestation.evidence import service_report_data

PROJECT = Path(__file__).resolve().parent.parent
MEASUREMENT = "ab" * 32
OTHER_MEASUREMENT = "cd" * 32


def session_text(name: str, *, environment: str = "{}", extra: str = "", tolerate: str = "[simulated-platform]") -> str:
    """A session with one service ``web`` that the tests' evidence satisfies."""
    return f"""
name: {name}
version: "0.3"
services:
  - name: web
    command: [python3, /app/server.py]
    environment: {environment}
    pwd: /app
    attestation: {{mrenclave: ["{MEASUREMENT}"]}}
    fspf_path: /.sconify/index
    fspf_key: "{"0123456789abcdef" * 4}"
    fspf_tag: "{"fedcba9876543210" * 2}"
security:
  attestation: {{tolerate: {tolerate}}}
{extra}
"""


@dataclass(frozen=True)
class Answer:
    """A status and a JSON body."""

    status: int
    body: Any

    @property
    def message(self) -> str:
        return str(self.body["msg"][0])


@dataclass(frozen=True)
class Client:
    """A client with an identity of its own, made with openssl, that speaks through curl."""

    directory: Path
    port: int

    @classmethod
    def make(cls, directory: Path, port: int) -> Client:
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-subj", "/CN=somebody", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-keyout", directory / "key.pem", "-out", directory / "cert.pem"),
            ],
            check=True,
            capture_output=True,
        )
        return cls(directory, port)

    def at(self, port: int) -> Client:
        return Client(self.directory, port)

    @property
    def certificate(self) -> str:
        return (self.directory / "cert.pem").read_text()

    def request(self, path: str, *options: str, body: str | bytes | None = None, identify: bool = True) -> Answer:
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--insecure",
            "--max-time",
            "30",
            "--write-out",
            "\n%{http_code}",
        ]
        if identify:
            command += ["--cert", str(self.directory / "cert.pem"), "--key", str(self.directory / "key.pem")]
        data = None
        if body is not None:
            command += ["--data-binary", "@-"]
            data = body.encode() if isinstance(body, str) else body
        command += [*options, f"https://127.0.0.1:{self.port}{path}"]
        done = subprocess.run(command, input=data, capture_output=True, check=False)
        text, _, status = done.stdout.decode().rpartition("\n")
        assert done.returncode == 0, done.stderr.decode()
        return Answer(int(status), json.loads(text) if text else None)

    def upload(self, text: str) -> Answer:
        return self.request("/v1/sessions", body=text)

    def read(self, name: str) -> Answer:
        return self.request(f"/v1/sessions/{name}")


class Enclave:
    """What the runtime does, step by step, so that tests can do each step wrong."""

    def __init__(self, port: int, config_id: str, *, host: str = "127.0.0.1") -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._connection = http.client.HTTPSConnection(host, port, context=context, timeout=30)
        self.config_id = config_id
        self.key = ECKey.generate_key("P-256")
        jwk = self.key.as_dict(private=False)
        self.public_key: dict[str, Any] = {name: jwk[name] for name in ("kty", "crv", "x", "y")}
        self.point = b"\x04" + decode(self.public_key["x"]) + decode(self.public_key["y"])

    def post(self, path: str, body: object, *, token: str | None = None) -> Answer:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._connection.request("POST", path, data, headers)
        response = self._connection.getresponse()
        content = response.read()
        return Answer(response.status, json.loads(content) if content else None)

    def get(self, path: str, *, token: str) -> Answer:
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = self._connection.getresponse()
        return Answer(response.status, json.loads(response.read()))

    def challenge(self) -> str:
        answer = self.post("/v1/challenge", {"config_id": self.config_id})
        assert answer.status == 200, answer
        assert answer.body["expires_in"] == 60
        return str(answer.body["nonce"])

    def evidence(self, nonce: str, *, measurement: str = MEASUREMENT) -> dict[str, Any]:
        report_data = service_report_data(nonce=decode(nonce), public_key=self.point, config_id=self.config_id)
        return simulated.issue(
            measurement=bytes.fromhex(measurement), report_data=report_data, issued_at=int(time.time())
        )

    def attest(self, **changes: Any) -> Answer:
        """Attest; the named members of the request are replaced."""
        nonce = changes.get("nonce") or self.challenge()
        request = {"config_id": self.config_id, "nonce": nonce, "public_key": self.public_key}
        return self.post("/v1/attest", {**request, "evidence": self.evidence(nonce), **changes})

    def open(self, sealed: str, *, key: ECKey | None = None) -> dict[str, Any]:
        """Open a sealed configuration and verify its signature by the key that it names."""
        outer = jwe.decrypt_compact(sealed, key or self.key)
        assert outer.plaintext is not None
        assert set(outer.headers()) == {"alg", "enc", "epk", "typ"}
        assert outer.headers()["typ"] == "sconify-config"
        inner = outer.plaintext.decode()
        jwk = json.loads(decode(inner.split(".")[0]))["jwk"]
        return {"jwk": jwk, **json.loads(jws.deserialize_compact(inner, ECKey.import_key(jwk)).payload)}


@dataclass(frozen=True)
class RunningCas:
    """A CAS that serves."""

    process: subprocess.Popen[str]
    state_dir: Path
    output: tuple[str, ...]
    log: Path

    @property
    def key(self) -> str:
        """SHA-256 of the CAS key's SubjectPublicKeyInfo, in hex digits."""
        return next(line for line in self.output if line.startswith("CAS key: ")).split()[2]

    def events(self) -> list[dict[str, Any]]:
        """The events of the audit log."""
        return [json.loads(line) for line in (self.state_dir / "audit.jsonl").read_text().splitlines()]

    @property
    def client_port(self) -> int:
        return int(next(line for line in self.output if line.startswith("Client API")).rpartition(":")[2])

    @property
    def enclave_port(self) -> int:
        return int(next(line for line in self.output if line.startswith("Enclave API")).rpartition(":")[2])

    def enclave(self, config_id: str) -> Enclave:
        return Enclave(self.enclave_port, config_id)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def serve_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "sconify.cli.main", "cas", "serve", *options]


def serve_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT / "src")}


@contextmanager
def running_cas(
    state_dir: Path, *options: str, mode: str = "--debug", prefix: tuple[str, ...] = (), client_port: int = 0
) -> Iterator[RunningCas]:
    """Run `sconify cas serve` on free ports until the block ends."""
    ready, write_end = os.pipe()
    state_dir.parent.mkdir(parents=True, exist_ok=True)
    log = state_dir.parent / f"{state_dir.name}.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [
                *prefix,
                *serve_command(
                    *(
                        f"--state-dir={state_dir}",
                        f"--client-listen=127.0.0.1:{client_port}",
                        "--enclave-listen=127.0.0.1:0",
                    ),
                    *(mode, f"--ready-fd={write_end}", *options),
                ),
            ],
            env=serve_environment(),
            pass_fds=[write_end],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    os.close(write_end)
    try:
        assert os.read(ready, 16) == b"ready\n", log.read_text()
        assert process.stdout is not None
        yield RunningCas(process, state_dir, tuple(process.stdout.readline().strip() for _ in range(5)), log)
    finally:
        os.close(ready)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        finally:
            process.kill()


def decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
