"""Servers that are no CAS, lie, stall or stand in between: the client ends with one message of the right family."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.attestation import simulated
from sconify.attestation.evidence import cas_report_data
from sconify.attestation.judge import Mode
from sconify.cas.attest import attest_cas
from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.client import CasClient
from sconify.cas.connection import CasConnection, CasRefusedError
from sconify.cas.identity import Identity
from sconify.errors import ServiceError, UntrustedDataError, UserError

SERVER = Identity.generate()
CLIENT = Identity.generate()

Handler = Callable[[socket.socket], None]


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Identity], Path]:
    directory = tmp_path_factory.mktemp("keys")

    def write(identity: Identity) -> Path:
        path = directory / f"{identity.key_hash}.pem"
        path.touch(0o600)
        path.write_bytes(identity.private_pem())
        return path

    return write


@contextmanager
def listening(handle: Handler) -> Iterator[CasAddress]:
    """Serve each connection by a function, in plain TCP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=[connection], daemon=True).start()

        def run(connection: socket.socket) -> None:
            with connection:
                try:
                    handle(connection)
                except OSError:
                    return  # the client has left

        threading.Thread(target=accept, daemon=True).start()
        yield CasAddress("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def over_tls(certificate: Path, answer: Callable[[str], bytes], then: Handler | None = None) -> Handler:
    """Answer each request, given as its first line, over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def handle(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            request = b""
            while b"\r\n\r\n" not in request:
                block = tls.recv(4096)
                if not block:
                    return
                request += block
            tls.sendall(answer(request.partition(b"\r\n")[0].decode()))
            if then is not None:
                then(tls)
            else:
                tls.unwrap()

    return handle


def http(content: bytes | object, status: int = 200) -> bytes:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def attested(address: CasAddress, identity: Identity = SERVER) -> AttestedCas:
    return AttestedCas(address, identity.certificate, Mode.DEBUG, "simulated", "ab" * 32, "2026-01-01T00:00:00+00:00")


def connection(address: CasAddress, timeout: float = 5.0) -> CasConnection:
    return CasConnection(address, identity=CLIENT, key_sha256=attested(address).key_sha256, timeout=timeout, retries=0)


def test_a_server_with_another_key_gets_no_byte_of_the_request(pem: Callable[[Identity], Path]) -> None:
    received: list[str] = []

    def answer(line: str) -> bytes:
        received.append(line)
        return http({})

    with listening(over_tls(pem(Identity.generate()), answer)) as address:
        with pytest.raises(UntrustedDataError, match="has not the key of the attested CAS") as caught:
            connection(address).request("POST", "/v1/sessions", body=b"secret")
        assert attested(address).key_hash in caught.value.what
        time.sleep(0.2)
    assert received == []


def test_a_proxy_that_ends_tls_is_refused_at_attestation(pem: Callable[[Identity], Path]) -> None:
    """It passes the true CAS's evidence on, but has not its key."""

    def answer(line: str) -> bytes:
        nonce = bytes.fromhex(line.partition("nonce=")[2][:64])
        return http(honest(nonce))

    with (
        listening(over_tls(pem(Identity.generate()), answer)) as proxy,
        pytest.raises(UntrustedDataError, match=r"it claims the key .* but the server has"),
    ):
        attest_cas(proxy, allow_debug=True)


def honest(nonce: bytes, **changes: object) -> dict[str, object]:
    data = cas_report_data(nonce=nonce, spki=SERVER.spki, mode="debug")
    evidence = simulated.issue(measurement=bytes(32), report_data=data, issued_at=1)
    return {"evidence": evidence, "mode": "debug", "key": base64.b64encode(SERVER.spki).decode()} | changes


def evidence_for(nonce: bytes, spki: bytes, mode: str) -> dict[str, object]:
    data = cas_report_data(nonce=nonce, spki=spki, mode=mode)
    return dict(simulated.issue(measurement=bytes(32), report_data=data, issued_at=1))


LIES: dict[str, tuple[Callable[[bytes], object], str]] = {
    "replayed": (lambda _: honest(bytes(32)), "its evidence is not valid"),
    "other mode": (lambda nonce: honest(nonce, mode="production"), "its evidence is not valid"),
    "no mode": (lambda nonce: honest(nonce, mode=None), "it names no mode"),
    "unknown mode": (lambda nonce: honest(nonce, mode="Debug"), "it names no mode"),
    "mode list": (lambda nonce: honest(nonce, mode=["debug"]), "it names no mode"),
    "no key": (lambda nonce: honest(nonce, key=None), "it claims the key"),
    "no base64": (lambda nonce: honest(nonce, key="$"), "it claims the key"),
    "key not ASCII": (lambda nonce: honest(nonce, key="é"), "it claims the key"),
    "other key": (
        lambda nonce: honest(nonce, key=base64.b64encode(CLIENT.spki).decode()),
        "it claims the key",
    ),
    "evidence for another key": (
        lambda nonce: honest(nonce, evidence=evidence_for(nonce, CLIENT.spki, "debug")),
        "its evidence is not valid",
    ),
    "no evidence": (lambda nonce: honest(nonce, evidence=None), "its evidence is not valid"),
    "unknown evidence": (lambda nonce: honest(nonce, evidence={"kind": "sgx"}), "its evidence is not valid"),
    "unhashable kind": (lambda nonce: honest(nonce, evidence={"kind": []}), "its evidence is not valid"),
    "changed evidence": (
        lambda nonce: honest(nonce, evidence=evidence_for(nonce, SERVER.spki, "debug") | {"measurement": "ab" * 32}),
        "its evidence is not valid",
    ),
    "empty": (lambda _: {}, "it names no mode"),
}


@pytest.mark.parametrize(("lie", "message"), LIES.values(), ids=LIES)
def test_lies_about_itself_are_refused(
    pem: Callable[[Identity], Path], lie: Callable[[bytes], object], message: str
) -> None:
    def answer(line: str) -> bytes:
        return http(lie(bytes.fromhex(line.partition("nonce=")[2][:64])))

    with listening(over_tls(pem(SERVER), answer)) as address, pytest.raises(UntrustedDataError, match=message):
        attest_cas(address, allow_debug=True)


def test_the_honest_answer_of_these_tests_is_accepted(pem: Callable[[Identity], Path]) -> None:
    def answer(line: str) -> bytes:
        return http(honest(bytes.fromhex(line.partition("nonce=")[2][:64])))

    with listening(over_tls(pem(SERVER), answer)) as address:
        assert attest_cas(address, allow_debug=True).key_hash == SERVER.key_hash


GARBAGE = {
    "nothing": b"",
    "no HTTP": b"\x00\x01\x02\r\n\r\n",
    "HTML": b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
    "list": http([]),
    "cut": http({"hash": "ab" * 32}).replace(b"Content-Length: ", b"Content-Length: 9"),
    "deep": http(b"[" * 200_000),
    "not UTF-8": http(b'{"a": "\xff"}'),
    "status line": b"HTTP/9.9 9999999999 X\r\n\r\n",
    "many headers": b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    "long header": b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n[",
    "error without JSON": http(b"Internal Server Error", status=500),
    "redirect": b"HTTP/1.1 302 X\r\nLocation: https://other/\r\nContent-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_service_error(pem: Callable[[Identity], Path], content: bytes) -> None:
    with (
        listening(over_tls(pem(SERVER), lambda _: content)) as address,
        pytest.raises(ServiceError, match=f"the server at {address} is no CAS, or the connection broke"),
    ):
        connection(address).request("GET", "/v1/version")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), head=st.sampled_from([b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 X\r\n\r\n"]))
def test_random_answers_are_never_another_error(pem: Callable[[Identity], Path], content: bytes, head: bytes) -> None:
    with (
        listening(over_tls(pem(SERVER), lambda _: head + content)) as address,
        pytest.raises((ServiceError, UserError)),
    ):
        CasClient(attested(address), identity=CLIENT, timeout=5, retries=0).read_session("a")


@pytest.mark.parametrize(
    "document", [{}, {"hash": "x"}, {"hash": "AB" * 32, "session": ""}, {"hash": 7}, {"session": "x", "hash": None}]
)
def test_answers_without_their_members_are_refused(pem: Callable[[Identity], Path], document: object) -> None:
    with listening(over_tls(pem(SERVER), lambda _: http(document))) as address:
        client = CasClient(attested(address), identity=CLIENT, timeout=5, retries=0)
        with pytest.raises(ServiceError, match="answered without a valid"):
            client.create_session("name: a")
        with pytest.raises(ServiceError, match="answered without a valid"):
            client.read_session("a")


def test_endless_answer_is_cut_off(pem: Callable[[Identity], Path]) -> None:
    def flood(tls: socket.socket) -> None:
        while True:
            tls.sendall(b" " * 65536)

    with (
        listening(over_tls(pem(SERVER), lambda _: b"HTTP/1.1 200 OK\r\n\r\n", flood)) as address,
        pytest.raises(ServiceError, match="larger than"),
    ):
        connection(address).request("GET", "/v1/version")


def test_messages_of_the_server_can_not_steer_the_terminal(pem: Callable[[Identity], Path]) -> None:
    message = ["outer \x1b[2J\n\r", "inner \u202e" + "x" * 10_000, 7, *(["more"] * 1000)]
    content = http({"msg": message, "remedy": "do \x07"}, status=403)
    with listening(over_tls(pem(SERVER), lambda _: content)) as address, pytest.raises(CasRefusedError) as caught:
        connection(address).request("GET", "/v1/version")
    shown = caught.value.diagnostics()
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "Caused by: inner" in shown
    assert len(shown) < 10_000
    assert caught.value.status == 403


@pytest.mark.parametrize("message", [None, 7, "text", {}, [], [7]])
def test_error_without_messages_is_still_an_error(pem: Callable[[Identity], Path], message: object) -> None:
    with (
        listening(over_tls(pem(SERVER), lambda _: http({"msg": message}, status=500))) as address,
        pytest.raises(ServiceError, match="HTTP status 500"),
    ):
        connection(address).request("GET", "/v1/version")


def hang(connection: socket.socket) -> None:
    connection.recv(1)
    time.sleep(30)


def drip(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def test_server_that_never_shakes_hands_is_given_up() -> None:
    with listening(hang) as address:
        started = time.monotonic()
        with pytest.raises(ServiceError, match=r"did not answer within 0\.5 s"):
            connection(address, timeout=0.5).request("GET", "/v1/version")
        assert time.monotonic() - started < 3


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nA: ", b"HTTP/1.1 200 OK\r\n\r\n"])
@pytest.mark.parametrize("stall", [hang, drip])
def test_server_that_stalls_is_given_up(pem: Callable[[Identity], Path], head: bytes, stall: Handler) -> None:
    with listening(over_tls(pem(SERVER), lambda _: head, stall)) as address:
        started = time.monotonic()
        with pytest.raises(ServiceError, match=r"did not answer within 0\.7 s"):
            connection(address, timeout=0.7).request("GET", "/v1/version")
        assert time.monotonic() - started < 3


def reset(connection: socket.socket) -> None:
    connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def plain_http(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(http({}))


@pytest.mark.parametrize("handle", [reset, plain_http, lambda connection: connection.recv(4096)])
def test_server_without_tls_is_a_service_error(handle: Handler) -> None:
    with listening(handle) as address, pytest.raises(ServiceError, match="is no CAS, or the connection broke"):
        connection(address).request("GET", "/v1/version")


def test_nobody_there_is_tried_again_as_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = CasAddress("127.0.0.1", listener.getsockname()[1])
    monkeypatch.setenv("SCONE_CLI_RETRIES", "2")
    started = time.monotonic()
    with pytest.raises(ServiceError, match=f"CAS at {address} can't be reached: connection refused") as caught:
        attest_cas(address, allow_debug=True)
    assert time.monotonic() - started >= 0.6
    assert "sconify cas serve" in str(caught.value.remedy)
    assert "--cas=" in str(caught.value.remedy)
    monkeypatch.setenv("SCONE_CLI_RETRIES", "many")
    with pytest.raises(UserError, match="SCONE_CLI_RETRIES is 'many'"):
        attest_cas(address, allow_debug=True)


def test_the_key_of_the_client_is_in_no_file_and_no_descriptor_stays() -> None:
    def descriptors() -> list[str]:
        found = []
        for path in Path("/proc/self/fd").iterdir():
            try:
                found.append(str(path.readlink()))
            except OSError:
                continue
        return found

    before = len(descriptors())
    for _ in range(10):
        connection(CasAddress("127.0.0.1", 1))
    assert not any("memfd:identity" in name for name in descriptors())
    assert len(descriptors()) <= before
