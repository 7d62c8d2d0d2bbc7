"""The real runtime with a real CAS and a real LAS: attested, it runs the program of a protected file system."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cas_server import Client, RunningCas, running_cas
from tests.protected_program import KEY, ProtectedProgram, protected_program


@dataclass
class Setup:
    """A converted program, by hand."""

    program: ProtectedProgram
    cas: RunningCas
    client: Client
    las: str

    def upload(
        self, name: str, *, argument: str, measured: str | None = None, tag: str | None = None, security: str = ""
    ) -> None:
        attestation = f'{{mrenclave: ["{measured or self.program.measurement}"]}}'
        service = self.program.service(argument=argument, attestation=attestation, tag=tag)
        answer = self.client.upload(f"""
name: {name}
version: "0.3"
{service}
security:
  attestation: {{tolerate: [simulated-platform]}}
  {security}
""")
        assert answer.status == 201, answer

    def run(self, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.program.run(name, cas_port=self.cas.enclave_port, las=self.las, **variables)


@contextmanager
def running_las(socket: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "sconify.cli.main", "las", "serve", "--listen=127.0.0.1:0", f"--socket={socket}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert f"unix:{socket}" in process.stderr.readline()
        try:
            yield f"unix:{socket}"
        finally:
            process.terminate()
            process.communicate(timeout=20)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setup]:
    directory = tmp_path_factory.mktemp("runtime")
    with running_cas(directory / "cas") as cas, running_las(directory / "las.sock") as las:
        program = protected_program(directory, cas_key=cas.key)
        client = Client.make(directory / "client", cas.client_port)
        yield Setup(program, cas, client, las)


@pytest.mark.parametrize(("argument", "code"), [("0", 0), ("7", 7), ("255", 255), ("-9", 137), ("-15", 143)])
def test_program_runs_and_its_end_is_ours(setup: Setup, argument: str, code: int) -> None:
    name = f"end{argument}"
    setup.upload(name, argument=argument)
    done = setup.run(name)
    assert done.returncode == code, done.stderr
    assert done.stdout.splitlines() == ["program", argument, "hello"]
    told = setup.cas.events()[-1]
    assert told["event"] == "service exited"
    assert told["config_id"] == f"{name}/web"
    assert (told.get("status"), told.get("signal")) == (
        (code, None) if code < 128 or code == 255 else (None, code - 128)
    )
    assert "[SCONE|FATAL]" not in done.stderr


def test_other_measurement_is_refused_by_name(setup: Setup) -> None:
    setup.upload("measured", argument="0", measured="cd" * 32)
    done = setup.run("measured")
    assert done.returncode == 115
    assert done.stdout == ""
    assert setup.program.measurement in done.stderr


def test_unknown_session_is_refused(setup: Setup) -> None:
    done = setup.run("nobody")
    assert done.returncode == 115
    assert "nobody/web" in done.stderr


def test_wrong_tag_is_refused(setup: Setup) -> None:
    setup.upload("tag", argument="0", tag="00" * 16)
    done = setup.run("tag")
    assert done.returncode == 117
    assert str(setup.program.index) in done.stderr
    assert "fspf_tag" in done.stderr
    assert KEY.hex() not in done.stderr


@pytest.mark.parametrize(
    ("token", "code", "text"),
    [("open sesame, please", 0, ""), ("another", 115, "it is another one"), ("", 115, "SCONE_SERVICE_ACCESS_TOKEN")],
)
def test_the_service_access_token_is_asked_for(setup: Setup, token: str, code: int, text: str) -> None:
    name = f"token{code}{len(token)}"
    setup.upload(name, argument="0", security="service_access_token: open sesame, please")
    done = setup.run(name, SCONE_SERVICE_ACCESS_TOKEN=token)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert "open sesame, please" not in done.stdout + done.stderr


def test_a_service_with_a_token_is_not_configured_by_a_policy_without(setup: Setup) -> None:
    setup.upload("tokenless", argument="0")
    done = setup.run("tokenless", SCONE_SERVICE_ACCESS_TOKEN="open sesame, please")
    assert done.returncode == 116, done.stderr
    assert "the policy has none" in done.stderr
    assert done.stdout == ""


def test_a_service_runs_once_at_a_time(setup: Setup) -> None:
    # Stops itself for ever.
    setup.upload("once", argument="-19", security="singleton_enclaves: true")
    with ThreadPoolExecutor() as pool:
        first = pool.submit(setup.run, "once", SCONE_LOG="info")
        while setup.cas.events()[-1]["event"] != "service attested":
            time.sleep(0.05)
        second = setup.run("once")
        assert second.returncode == 115, second.stderr
        assert "may run once at a time" in second.stderr
        with contextlib.closing(sqlite3.connect(setup.cas.state_dir / "cas.sqlite")) as database, database:
            database.execute("UPDATE leases SET run = 'another' WHERE service = 'once/web'")
        done = first.result()
    assert done.returncode == 121, done.stderr
    assert "once/web was taken over by another run" in done.stderr
