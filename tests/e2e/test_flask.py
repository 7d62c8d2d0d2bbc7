"""The Flask example, converted, in containers of every kind that production uses."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.containers import ENCRYPTED, Canaries, Container, run

pytestmark = pytest.mark.docker


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--user", "1000"),
        ("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        ("--read-only",),
        ("--user", "1000:3000", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
    ],
    ids=["plain", "user", "no-capabilities", "read-only", "restricted"],
)
def test_it_answers_over_https(
    options: tuple[str, ...], flask_encrypted: dict[str, Any], canaries: Canaries, start: Callable[..., Container]
) -> None:
    container = start(ENCRYPTED, *options)
    answer = container.answer()
    assert answer == {"service": "patients", "greeting": canaries.environment, "arguments": [canaries.argument]}


def test_the_result_names_session_and_measurement(flask_encrypted: dict[str, Any]) -> None:
    printed = run("docker", "run", "--rm", "--env", "SCONE_HASH=1", "--network", "none", ENCRYPTED)
    assert printed.stdout == flask_encrypted["measurement"] + "\n"
    assert re.fullmatch(r"sconify-[0-9a-f]{12}/sconify-testflask-encrypted", flask_encrypted["session"])


def test_nothing_of_the_host_reaches_the_program(
    flask_encrypted: dict[str, Any], canaries: Canaries, start: Callable[..., Container]
) -> None:
    container = start(ENCRYPTED, "--env", "GREETING=from the host", "--env", "PYTHONPATH=/evil")
    assert container.answer()["greeting"] == canaries.environment


def test_stopping_and_exit_codes_are_the_programs(
    flask_encrypted: dict[str, Any], start: Callable[..., Container]
) -> None:
    container = start(ENCRYPTED)
    container.answer()
    run("docker", "kill", "--signal", "TERM", container.name)
    assert run("docker", "wait", container.name).stdout.strip() == "143"
