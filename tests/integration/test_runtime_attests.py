"""The real runtime with a real CAS and a real LAS: attested, it runs the program of a protected file system."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
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

    def upload(self, name: str, *, argument: str, measured: str | None = None, tag: str | None = None) -> None:
        attestation = f'{{mrenclave: ["{measured or self.program.measurement}"]}}'
        service = self.program.service(argument=argument, attestation=attestation, tag=tag)
        answer = self.client.upload(f"""
name: {name}
version: "0.3"
{service}
security:
  attestation: {{tolerate: [simulated-platform]}}
""")
        assert answer.status == 201, answer

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        return self.program.run(name, cas_port=self.cas.enclave_port, las=self.las)


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
