"""The real runtime against a CAS and a LAS over real TLS: honest ones, then liars of each kind."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sconify.program.launch import LaunchManifest, measurement, runtime_path, sconified_binary
from tests.runtime_peers import CONFIG_ID, EVIDENCE, Answer, Cas, Las, key_hash, lp, new_key

LAUNCHED = 117
"""The exit code when the configuration was accepted: the file system that it names does not exist."""

SECRETS = ("secret-argument", "secret-variable", "0f" * 32, "the-token")


@dataclass
class Runtime:
    """A sconified binary that trusts one CAS."""

    path: Path
    manifest: LaunchManifest

    def run(self, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [self.path], env=environment, capture_output=True, text=True, check=False, timeout=60, errors="strict"
        )
        for secret in SECRETS:
            assert secret not in done.stdout + done.stderr
        return done

    def attest(self, cas_port: int, las: Las, **environment: str) -> subprocess.CompletedProcess[str]:
        with las.serving() as las_port:
            return self.run(
                {
                    "SCONE_CONFIG_ID": CONFIG_ID,
                    "SCONE_CAS_ADDR": f"127.0.0.1:{cas_port}",
                    "SCONE_LAS_ADDR": f"127.0.0.1:{las_port}",
                    **environment,
                }
            )

    def attest_to(self, cas: Cas, las: Las | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        with cas.serving() as port:
            return self.attest(port, las or Las(), **environment)


@pytest.fixture
def cas(tmp_path: Path) -> Cas:
    return Cas(tmp_path)


@pytest.fixture
def runtime(cas: Cas, tmp_path: Path) -> Runtime:
    return sconified(tmp_path, key_hash(cas.key))


def sconified(directory: Path, cas_key: str | None) -> Runtime:
    manifest = LaunchManifest.for_runtime(
        runtime_path(), program="/app", cas_key=cas_key, variables={"SCONE_HEAP": "64M", "SCONE_ALLOW_DLOPEN": "1"}
    )
    path = directory / "sconified"
    path.write_bytes(sconified_binary(runtime_path(), manifest))
    path.chmod(0o755)
    return Runtime(path, manifest)


def assert_failure(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """It ended with this code and one message of the platform's shape that has these texts."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    message = done.stderr[done.stderr.index("[SCONE|FATAL] ") :]
    assert re.fullmatch(r"\[SCONE\|FATAL\] .+\n(  Caused by: .+\n)+  To mend it: .+\n(Note: .+\n)?", message), message
    for text in texts:
        assert text in message


def test_honest_peers(runtime: Runtime, cas: Cas) -> None:
    """The configuration is accepted, and the evidence is bound to nonce, key, config id and measurement."""
    las = Las()
    done = runtime.attest_to(cas, las, HTTPS_PROXY="http://127.0.0.1:1", ALL_PROXY="http://127.0.0.1:1")
    assert_failure(done, LAUNCHED, "/nowhere/index")
    assert [path for path, _, _ in cas.requests] == ["/v1/challenge", "/v1/attest"]
    _, _, request = cas.requests[1]
    x, y = (base64.urlsafe_b64decode(request["public_key"][name] + "=") for name in ("x", "y"))
    parts = (b"sconify attestation v1", cas.nonce, b"\x04" + x + y, CONFIG_ID.encode())
    [asked] = las.requests
    assert asked == {
        "op": "evidence",
        "report_data": hashlib.sha512(b"".join(map(lp, parts))).hexdigest(),
        "measurement": measurement(runtime.manifest),
    }
    assert request["evidence"] == EVIDENCE
    assert "[SCONE|WARNING]" in done.stderr
    assert "simulated" in done.stderr


def test_each_start_has_its_own_key(runtime: Runtime, cas: Cas) -> None:
    runtime.attest_to(cas)
    runtime.attest_to(cas)
    keys = [request["public_key"]["x"] for path, _, request in cas.requests if path == "/v1/attest"]
    assert len(set(keys)) == 2


def test_overridden_variable_is_measured(runtime: Runtime, cas: Cas) -> None:
    las = Las()
    runtime.attest_to(cas, las, SCONE_HEAP="1G")
    assert las.requests[0]["measurement"] == measurement(runtime.manifest, environment={"SCONE_HEAP": "1G"})


def test_server_with_another_key(runtime: Runtime, cas: Cas) -> None:
    cas.tls_key = new_key()
    done = runtime.attest_to(cas)
    assert_failure(done, 114, key_hash(cas.tls_key), key_hash(cas.key), f"using service ID {CONFIG_ID}")
    assert cas.requests == []


def test_proxy_that_ends_tls_with_the_key_of_another_signer(runtime: Runtime, cas: Cas) -> None:
    cas.signing_key = new_key()
    assert_failure(runtime.attest_to(cas), 116, key_hash(cas.signing_key))


def test_configuration_for_another_start(runtime: Runtime, cas: Cas) -> None:
    cas.recipient = new_key().public_key()
    assert_failure(runtime.attest_to(cas), 116, "does not authenticate")


def setting(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda configuration: configuration.update({key: value})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (setting("nonce", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), "nonce"),
        (setting("config_id", "example/other/service"), "config_id"),
        (setting("unknown", 1), "malformed"),
        (lambda configuration: configuration.pop("environment"), "malformed"),
        (setting("command", []), "command"),
        (setting("environment", {"A=B": "secret-variable"}), "environment"),
        (setting("pwd", "relative"), "pwd"),
    ],
)
def test_configuration_that_is_not_acceptable(
    runtime: Runtime, cas: Cas, change: Callable[[dict[str, Any]], object], text: str
) -> None:
    cas.change = change
    assert_failure(runtime.attest_to(cas), 116, text)


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/v1/challenge", b"{}", "/v1/challenge"),
        ("/v1/challenge", b'{"nonce":"AAAA","expires_in":60}', "32 bytes"),
        ("/v1/attest", b'{"sealed":"a.b.c.d.e","session_token":"t","more":1}', "unknown field"),
        ("/v1/attest", b"not json", "/v1/attest"),
        ("/v1/attest", b"[" * 100_000, "/v1/attest"),
        ("/v1/attest", b" " * (33 << 20), "larger"),
    ],
    ids=["no nonce", "short nonce", "unknown key", "no JSON", "deep JSON", "oversize"],
)
def test_answer_that_can_not_be_read(runtime: Runtime, cas: Cas, path: str, body: bytes, text: str) -> None:
    cas.answer = lambda asked, _request, answer: (200, body) if asked == path else answer
    assert_failure(runtime.attest_to(cas), 113, text)


def test_sealed_rubbish(runtime: Runtime, cas: Cas) -> None:
    cas.sealed = "a.b.c"
    assert_failure(runtime.attest_to(cas), 116, "malformed")


def test_refusal_shows_the_reasons_and_no_forged_lines(runtime: Runtime, cas: Cas) -> None:
    body = (
        b'{"msg":["attestation refused","measurement\\n[SCONE|INFO] all is well"],"remedy":"permit it","version":"1"}'
    )
    cas.answer = lambda path, _request, answer: (403, body) if path == "/v1/attest" else answer
    done = runtime.attest_to(cas)
    assert_failure(done, 115, "status 403", "attestation refused", "To mend it: permit it")
    assert "\n[SCONE|INFO]" not in done.stderr


def test_redirects_are_not_followed(runtime: Runtime, cas: Cas) -> None:
    cas.answer = lambda *_: b"HTTP/1.1 307 X\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    assert_failure(runtime.attest_to(cas), 115, "status 307")


def test_connection_that_breaks_is_tried_again(runtime: Runtime, cas: Cas) -> None:
    """A CAS that dies while it answers, then is there again: all steps are repeated with a new key."""
    broken: list[str] = []

    def once(path: str, _request: dict[str, Any], answer: Answer) -> Answer | bytes:
        if path == "/v1/attest" and not broken:
            broken.append(path)
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"
        return answer

    cas.answer = once
    assert_failure(runtime.attest_to(cas), LAUNCHED)
    assert [path for path, _, _ in cas.requests] == ["/v1/challenge", "/v1/attest"] * 2


def test_plain_http(runtime: Runtime, cas: Cas) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        assert_failure(runtime.attest(listener.getsockname()[1], Las()), 113, "TLS failed")


def test_old_tls(runtime: Runtime, cas: Cas) -> None:
    cas.newest_tls = ssl.TLSVersion.TLSv1_2
    assert_failure(runtime.attest_to(cas), 113, "TLS failed")


def test_silent_server_is_given_up(runtime: Runtime) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        start = time.monotonic()
        done = runtime.attest(listener.getsockname()[1], Las())
    assert_failure(done, 113, "in time")
    assert 4 < time.monotonic() - start < 9


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_absent_cas_is_waited_for_and_given_up(runtime: Runtime) -> None:
    port = free_port()
    start = time.monotonic()
    done = runtime.attest(port, Las())
    assert_failure(done, 113, "refused", f"start the CAS at 127.0.0.1:{port}", f"CAS at 127.0.0.1 (port {port})")
    assert 8 < time.monotonic() - start < 14


def test_late_cas_is_waited_for(runtime: Runtime, cas: Cas) -> None:
    port = free_port()
    results = []
    thread = threading.Thread(target=lambda: results.append(runtime.attest(port, Las())))
    thread.start()
    time.sleep(1)
    with cas.serving(port):
        thread.join()
    assert_failure(results[0], LAUNCHED)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"error":"this host is not for you"}\n', "this host is not for you"),
        (b"{}\n", "can't be read"),
        (b'{"evidence":{"kind":"simulated"}}', "cut off"),
        (b'{"evidence":"' + b"x" * (2 << 20) + b'"}\n', "too long"),
    ],
    ids=["refuses", "empty", "cut off", "too long"],
)
def test_las_without_evidence(runtime: Runtime, cas: Cas, answer: bytes, text: str) -> None:
    assert_failure(runtime.attest_to(cas, Las(answer)), 112, text)
    assert [path for path, _, _ in cas.requests] == ["/v1/challenge"]


@pytest.mark.parametrize(
    ("environment", "text"),
    [
        ({}, "SCONE_CONFIG_ID is not set"),
        ({"SCONE_CONFIG_ID": "session"}, "SESSION/SERVICE"),
        ({"SCONE_CONFIG_ID": CONFIG_ID, "SCONE_CAS_ADDR": "https://cas"}, "SCONE_CAS_ADDR"),
        ({"SCONE_CONFIG_ID": CONFIG_ID, "SCONE_LAS_ADDR": "unix:relative"}, "SCONE_LAS_ADDR"),
        ({"SCONE_CONFIG_ID": CONFIG_ID, "SCONE_HEAP": "lots"}, "SCONE_HEAP"),
    ],
)
def test_bad_settings(runtime: Runtime, environment: dict[str, str], text: str) -> None:
    assert_failure(runtime.run(environment), 110, text)


def test_image_without_a_cas(tmp_path: Path) -> None:
    assert_failure(sconified(tmp_path, None).run({"SCONE_CONFIG_ID": CONFIG_ID}), 111, "no CAS key")


def test_hash_comes_before_everything_else(runtime: Runtime) -> None:
    done = runtime.run({"SCONE_HASH": "1", "SCONE_VERSION": "1", "SCONE_CAS_ADDR": "not an address", "SCONE_LOG": "7"})
    assert (done.returncode, done.stdout, done.stderr) == (0, measurement(runtime.manifest) + "\n", "")


def test_version_is_printed_and_the_start_goes_on(runtime: Runtime) -> None:
    done = runtime.run({"SCONE_VERSION": "1", "SCONE_HEAP": "1g"})
    settings, _, rest = done.stdout.partition("\n\n")
    assert settings.splitlines() == [
        "SCONE_LOG=WARNING",
        "SCONE_HEAP=1073741824",
        "SCONE_STACK=<not specified>",
        "SCONE_ALLOW_DLOPEN=yes (protected)",
        "SCONE_FORK=yes",
    ]
    lines = rest.splitlines()
    assert lines[0] == "SCONE_CONFIG_ID: <not specified>"
    assert re.fullmatch(r"SCONE version: 0\.1\.0 \(runtime [0-9a-f]{16}\)", lines[1])
    assert lines[2].split()[2] == measurement(runtime.manifest, environment={"SCONE_HEAP": "1G"})
    assert done.returncode == 110


def test_log_is_on_standard_error_in_the_shape_of_the_platform(runtime: Runtime, cas: Cas) -> None:
    done = runtime.attest_to(cas, SCONE_LOG="debug")
    lines = done.stderr[: done.stderr.index("[SCONE|FATAL]")].splitlines()
    assert lines
    for line in lines:
        assert re.match(r"\[SCONE\|(WARNING|INFO|DEBUG)\] [a-z/_]+\.rs:[0-9]+: ", line)


@pytest.mark.docker
def test_runtime_runs_in_an_empty_container(runtime: Runtime) -> None:
    options = ("--user", "1000", "--cap-drop", "ALL", "--read-only", "--network", "none")
    tag = f"sconify-test/empty:{os.getpid()}"
    archive = subprocess.run(
        ["tar", "c", "-C", str(runtime.path.parent), runtime.path.name], capture_output=True, check=True
    )
    subprocess.run(["docker", "import", "-", tag], input=archive.stdout, capture_output=True, check=True)
    try:
        done = subprocess.run(
            ["docker", "run", "--rm", *options, "-e", "SCONE_HASH=1", tag, "/sconified"],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        subprocess.run(["docker", "rmi", "--force", tag], capture_output=True, check=True)
    assert done.stdout == measurement(runtime.manifest) + "\n"
