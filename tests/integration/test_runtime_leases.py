"""A service that runs once at a time renews its place, and ends when it has lost it: real runtime, scripted CAS."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.protected_program import KEY, ProtectedProgram, protected_program
from tests.runtime_peers import CONFIG_ID, TOKEN, Answer, Cas, Las, key_hash


class Lessor(Cas):
    """A CAS that gives a program for one second, and answers renewals with the next of ``answers``."""

    program: ProtectedProgram
    argument = "-19"  # SIGSTOP: it never ends by itself
    answers: list[Answer]

    def configuration(self) -> dict[str, Any]:
        return {
            **super().configuration(),
            "command": ["program", self.argument],
            "environment": {"GREETING": "hello"},
            "file_system": {"path": str(self.program.index), "key": KEY.hex(), "tag": self.program.tag},
            "lease_seconds": 1,
        }

    def respond(self, path: str, request: dict[str, Any]) -> Answer:
        if path == "/v1/renew" and self.answers:
            return self.answers.pop(0)
        return super().respond(path, request)

    def renewals(self) -> int:
        return len([path for path, _, _ in self.requests if path == "/v1/renew"])


@pytest.fixture
def cas(tmp_path: Path) -> Lessor:
    cas = Lessor(tmp_path)
    cas.program = protected_program(tmp_path, cas_key=key_hash(cas.key))
    cas.answers = []
    return cas


def run(cas: Lessor) -> subprocess.CompletedProcess[str]:
    with cas.serving() as port, Las().serving() as las:
        environment = {
            "SCONE_CONFIG_ID": CONFIG_ID,
            "SCONE_CAS_ADDR": f"127.0.0.1:{port}",
            "SCONE_LAS_ADDR": f"127.0.0.1:{las}",
        }
        return subprocess.run(
            [cas.program.binary], env=environment, capture_output=True, text=True, check=False, timeout=60
        )


def test_a_program_that_ends_is_not_held_up(cas: Lessor) -> None:
    cas.argument = "7"
    done = run(cas)
    assert done.returncode == 7, done.stderr
    path, _, body = cas.requests[-1]
    assert (path, body) == ("/v1/exit", {"status": 7, "signal": None})


def test_it_renews_until_another_run_has_its_place(cas: Lessor) -> None:
    refusal = {"msg": ["it was taken over by another run"], "remedy": "end this one", "version": "0.1.0"}
    renewed = (200, json.dumps({"expires_in": 1}).encode())
    cas.answers = [renewed, renewed, (409, json.dumps(refusal).encode())]
    begin = time.monotonic()
    done = run(cas)
    assert done.returncode == 121, done.stderr
    assert cas.renewals() == 3
    assert time.monotonic() - begin > 3 * 0.3
    assert "this run has lost its place" in done.stderr
    assert "it was taken over by another run" in done.stderr
    assert {headers["authorization"] for path, headers, _ in cas.requests if path == "/v1/renew"} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize("answer", [(503, b"{}"), (200, b"{}"), (200, b'{"expires_in": "long"}')])
def test_a_place_that_can_not_be_renewed_ends_the_run_in_time(cas: Lessor, answer: Answer) -> None:
    cas.answers = [answer] * 10
    begin = time.monotonic()
    done = run(cas)
    assert done.returncode == 121, done.stderr
    assert "has expired" in done.stderr
    assert time.monotonic() - begin < 10
