"""Clients that mean harm to the CAS: what they send, how they send it, and what they ask for."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from sconify.cas.tls import REQUEST_SECONDS
from tests.cas_server import Client, RunningCas, running_cas, session_text

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (LAUGHS, "aliases are expanded"),
        ("a: &a [" + "x" * 100_000 + "]\nb: [" + "*a, " * 1000 + "]", "aliases are expanded"),
        ("name: &a [*a]", "alias"),
        ("[" * 100_000, "nested deeper"),
        ("{a: " * 1000, "nested deeper"),
        ("- " * 10_000, "nested deeper"),
        ('name: a\nname: b\nversion: "0.3"', "line 2, column 1: a key is given twice"),
        ("name: !!python/object/apply:os.system [id]", "tags"),
        ("<<: {name: a}\nname: x", "line 1, column 1: unknown key"),
        ("name: a\n---\nname: b", "second document"),
        ("? [a]\n: b", "a key is a list"),
        ("", "empty"),
        ("\0", "not YAML"),
        ("a: b: c", "not YAML"),
        ("'", "not YAML"),
        ("- name", "expected a mapping"),
        ('name: ../x\nversion: "0.3"', "expected a name"),
        ('name: "a\\u0000"\nversion: "0.3"', "expected a name"),
        (f'name: {"x" * 600}\nversion: "0.3"', "600 characters"),
    ],
    ids=range(19),
)
def test_text_that_is_no_session(client: Client, text: str, why: str) -> None:
    begin = time.monotonic()
    answer = client.upload(text)
    assert answer.status == 400
    assert why in answer.message
    assert time.monotonic() - begin < 2


def test_text_that_is_no_utf_8(client: Client) -> None:
    assert client.request("/v1/sessions", body=b"name: \xff\xfe").status == 400


def test_a_body_that_is_too_large(client: Client) -> None:
    for options in ([], ["-H", "Expect:"]):
        answer = client.request("/v1/sessions", *options, body="x" * (1 << 22))
        assert answer.status == 413, options
    assert client.request("/v1/sessions", "-H", "Transfer-Encoding: chunked", body="x").status == 411


def raw_request(port: int, *pieces: bytes) -> bytes:
    """Send bytes over TLS, a piece at a time, and return what comes back."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20)) as connection:
        received = b""
        with suppress(OSError):
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.5 if len(pieces) > 1 else 0)
            while piece := connection.recv(4096):
                received += piece
        return received


def test_headers_that_are_too_large(cas: RunningCas, client: Client) -> None:
    answer = raw_request(cas.client_port, b"GET /v1/version HTTP/1.1\r\nHost: cas\r\nX: " + b"x" * 100_000)
    # The connection may break before the answer is read, for the rest of the headers is not taken.
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413")
    assert client.request("/v1/version").status == 200


def test_sessions_of_others_can_not_be_read_or_changed(
    client: Client, new_client: Callable[[], Client], name: str
) -> None:
    created = client.upload(session_text(name)).body["hash"]
    stranger = new_client()
    for answer in (stranger.read(name), stranger.request(f"/v1/sessions/{name}?hash={created}")):
        assert answer.status == 403
        assert "session" not in answer.body
    assert stranger.upload(session_text(name, extra=f'predecessor: "{created}"')).status == 403
    assert stranger.upload(session_text(name)).status == 409
    assert stranger.upload(session_text(f"{name}/below")).status == 403


def test_without_a_certificate_nothing_is_done(client: Client, name: str) -> None:
    client.upload(session_text(name))
    assert client.request(f"/v1/sessions/{name}", identify=False).status == 401
    assert client.request("/v1/sessions", body=session_text(f"{name}-2"), identify=False).status == 401


def test_one_who_has_the_certificate_but_not_its_key(client: Client, new_client: Callable[[], Client]) -> None:
    thief = new_client()
    (thief.directory / "cert.pem").write_text(client.certificate)
    with pytest.raises(AssertionError, match="key"):
        thief.read("x")


def test_a_creator_that_is_somebody_else(client: Client, new_client: Callable[[], Client], name: str) -> None:
    other = new_client()
    pem = "\n".join(f"  {line}" for line in other.certificate.splitlines())
    answer = client.upload(session_text(name, extra=f"creator: |\n{pem}\n"))
    assert answer.status == 403
    assert "creator" in answer.message


@pytest.mark.parametrize(
    "path", ["/v1/sessions/../../etc/passwd", "/v1/sessions/%2e%2e%2fx", "/v1/sessions/a%00b", "/v1//sessions/x"]
)
def test_paths_that_lead_astray(client: Client, path: str) -> None:
    assert client.request(path, "--path-as-is").status in (400, 404)


@pytest.mark.parametrize(
    "body",
    [
        b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFF\r\nxx\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nxx\r\n0\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: x\r\n\r\n",
        b"Content-Length: 1000000000000\r\n\r\nx",
    ],
    ids=range(5),
)
def test_lengths_that_lie(cas: RunningCas, body: bytes) -> None:
    answer = raw_request(cas.enclave_port, b"POST /v1/challenge HTTP/1.1\r\nHost: cas\r\n" + body)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 411", b"HTTP/1.1 413")), answer
    assert answer.count(b"HTTP/1.1") == 1
    assert "internal error" not in cas.log.read_text()


def test_a_body_that_trickles_in_is_dropped_in_time(cas: RunningCas) -> None:
    begin = time.monotonic()
    head = b"POST /v1/challenge HTTP/1.1\r\nHost: cas\r\nContent-Length: 100\r\n\r\n"
    assert raw_request(cas.enclave_port, head, *[b"x"] * 40) == b""
    assert REQUEST_SECONDS - 1 <= time.monotonic() - begin <= REQUEST_SECONDS + 15
    assert "internal error" not in cas.log.read_text()


def test_slow_clients_are_dropped_and_others_are_served(cas: RunningCas, client: Client) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    idle = [socket.create_connection(("127.0.0.1", cas.client_port)) for _ in range(200)]
    trickle = context.wrap_socket(socket.create_connection(("127.0.0.1", cas.client_port)))
    hello = socket.create_connection(("127.0.0.1", cas.client_port))
    begin = time.monotonic()
    dropped: set[socket.socket] = set()
    while time.monotonic() - begin < REQUEST_SECONDS + 5 and len(dropped) < 2:
        for connection, piece in ((trickle, b"X"), (hello, b"\x16")):
            try:
                connection.sendall(piece)
            except OSError:
                dropped.add(connection)
        time.sleep(0.2)
    assert len(dropped) == 2
    assert time.monotonic() - begin >= REQUEST_SECONDS - 1
    assert client.request("/v1/version").status == 200
    # Those that never said a word hold no thread, and are closed in the end.
    for connection in idle:
        connection.settimeout(5)
        assert connection.recv(1) == b""
        connection.close()


def test_idle_connections_do_not_keep_others_waiting(cas: RunningCas, client: Client) -> None:
    idle = [socket.create_connection(("127.0.0.1", cas.client_port)) for _ in range(300)]
    begin = time.monotonic()
    assert client.request("/v1/version").status == 200
    assert time.monotonic() - begin < 2
    for connection in idle:
        connection.close()


def test_a_cas_without_descriptors_waits_and_goes_on(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", prefix=("prlimit", "--nofile=120:120")) as cas:
        client = Client.make(tmp_path / "client", cas.client_port)
        idle = [socket.create_connection(("127.0.0.1", cas.client_port)) for _ in range(200)]
        time.sleep(1)
        for connection in idle[:150]:
            connection.close()
        assert client.request("/v1/version").status == 200
        assert cas.log.stat().st_size < 10_000
        for connection in idle:
            connection.close()


def test_plain_http_and_noise_on_the_tls_port(cas: RunningCas, client: Client) -> None:
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 100, b"\x80\x80\x01\x03\x01"):
        with socket.create_connection(("127.0.0.1", cas.enclave_port), timeout=15) as connection:
            received = b""
            with suppress(OSError):  # the server may hang up at once
                connection.sendall(noise)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(4096):
                    received += piece
            assert b"HTTP" not in received
    assert client.request("/v1/version").status == 200
