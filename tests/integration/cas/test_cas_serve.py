"""`sconify cas serve` as a process: what it prints, how it stops, and how it fails."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cas_server import Client, RunningCas, running_cas, serve_command, serve_environment, session_text


def serve(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        serve_command(*options), env=serve_environment(), capture_output=True, text=True, timeout=30, check=False
    )


def test_it_says_who_it_is_and_where_it_listens(cas: RunningCas) -> None:
    lines = dict(line.split(": ", 1) for line in cas.output)
    assert len(lines["CAS key hash"]) == 50
    assert len(bytes.fromhex(lines["CAS key"])) == 32
    assert lines["Mode"] == "debug"
    assert lines["Client API"].startswith("https://127.0.0.1:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_on_a_signal_and_is_the_same_cas_after_it(tmp_path: Path, number: signal.Signals) -> None:
    with running_cas(tmp_path / "state") as cas:
        client = Client.make(tmp_path / "client", cas.client_port)
        assert client.upload(session_text("one")).status == 201
        idle = socket.create_connection(("127.0.0.1", cas.client_port))
        cas.process.send_signal(number)
        assert cas.process.wait(10) == 0
        idle.close()
        first = cas.output[:2]
    with running_cas(tmp_path / "state") as cas:
        assert cas.output[:2] == first
        assert client.at(cas.client_port).read("one").status == 200
        assert cas.enclave("one/web").attest().status == 200


def test_it_listens_on_several_addresses(tmp_path: Path) -> None:
    options = ("--client-listen=127.0.0.2:0", "--enclave-listen=127.0.0.3:0")
    with running_cas(tmp_path / "state", *options) as cas:
        rest = cas.process.stdout.readline() + cas.process.stdout.readline() if cas.process.stdout else ""
        hosts = [line.split("//")[1].split(":")[0] for line in (*cas.output, *rest.splitlines()) if "API" in line]
        assert hosts == ["127.0.0.1", "127.0.0.2", "127.0.0.1", "127.0.0.3"]


def test_without_a_mode_it_is_in_production(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state", mode="--quiet") as cas:
        assert "Mode: production" in cas.output


def test_a_debug_store_never_becomes_a_production_one(tmp_path: Path) -> None:
    with running_cas(tmp_path / "state"):
        pass
    done = serve(f"--state-dir={tmp_path / 'state'}", "--production")
    assert done.returncode == 2
    assert "that of a CAS in debug mode" in done.stderr
    assert "--state-dir" in done.stderr


@pytest.mark.parametrize("flag", ["--client-listen", "--enclave-listen"])
def test_a_port_in_use_is_named_with_its_flag(tmp_path: Path, flag: str) -> None:
    other = "--enclave-listen" if flag == "--client-listen" else "--client-listen"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = serve(f"--state-dir={tmp_path / 'state'}", f"{other}=127.0.0.1:0", f"{flag}=127.0.0.1:{port}")
    assert done.returncode == 2
    assert f"port {port} of 127.0.0.1 is in use" in done.stderr
    assert flag in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--client-listen=8081"], 2, "expected HOST:PORT"),
        (["--client-listen=127.0.0.1:99999"], 2, "expected HOST:PORT"),
        (["--client-listen=192.0.2.1:0"], 2, "can't listen on 192.0.2.1:0"),
        (["--client-listen=no-such-host.invalid:0"], 2, "can't listen on no-such-host.invalid:0"),
        (["--state-dir=/dev/null/x"], 4, "can't be used"),
        (["--master-key-file=/dev/null"], 2, "no regular file"),
        (["--ready-fd=99", "--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0"], 4, "--ready-fd=99"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: list[str], code: int, message: str) -> None:
    done = serve(f"--state-dir={tmp_path / 'state'}", *options)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_the_master_key_can_be_kept_elsewhere(tmp_path: Path) -> None:
    key = tmp_path / "elsewhere.key"
    with running_cas(tmp_path / "state", f"--master-key-file={key}"):
        assert key.stat().st_mode & 0o777 == 0o600
        assert not (tmp_path / "state/master.key").exists()
    done = serve(f"--state-dir={tmp_path / 'state'}", "--client-listen=127.0.0.1:0", "--enclave-listen=127.0.0.1:0")
    assert done.returncode == 2
    assert "--master-key-file" in done.stderr
