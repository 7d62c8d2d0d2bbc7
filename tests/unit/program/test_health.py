"""What a health check runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from sconify.errors import UserError
from sconify.program.health import ARGUMENT, HealthCheck, health_check

FILES = {"/bin/sh": b"", "/usr/bin/curl": b"", "/app/check": b""}


@pytest.fixture
def read(make_view: Callable[..., Any]) -> Callable[[object], HealthCheck | None]:
    view = make_view(FILES)

    def call(test: object) -> HealthCheck | None:
        return health_check(view, {"Test": test}, environment={"PATH": "/usr/bin"}, working_dir="/app")

    return call


@pytest.mark.parametrize("test", [None, [], ["NONE"]])
def test_there_may_be_none(read: Callable[[object], HealthCheck | None], test: object) -> None:
    assert read(test) is None


def test_a_command_is_found_as_the_engine_finds_it(read: Callable[[object], HealthCheck]) -> None:
    check = read(["CMD", "curl", "-f", "http://localhost/"])
    assert json.loads(check.attribute()) == ["/usr/bin/curl", "curl", "-f", "http://localhost/"]
    assert check.commands == ("curl",)
    assert read(["CMD", "./check"]).program == "/app/check"


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("curl -f http://x/ || exit 1", ("curl", "exit")),
        ("A=1 curl 'a;b' | grep -q x && ( ./check )", ("curl", "grep", "./check")),
        ("if test -f /x; then curl y; fi", ("test", "curl", "fi")),
        ('[ "$(./check a)" = `curl x` ]', ("./check", "curl", "[")),
        ("curl 'unclosed", ("curl",)),
    ],
)
def test_commands_of_a_shell_text(read: Callable[[object], HealthCheck], text: str, commands: tuple[str, ...]) -> None:
    check = read(["CMD-SHELL", text])
    assert check.argv == ("/bin/sh", "-c", text)
    assert check.commands == ("/bin/sh", *commands)


@pytest.mark.parametrize("test", [["CMD"], ["CMD-SHELL", "a", "b"], ["OTHER", "x"], ["CMD", "missing"]])
def test_other_forms_and_missing_programs_are_refused(read: Callable[[object], Any], test: object) -> None:
    with pytest.raises(UserError, match=r"HEALTHCHECK|missing"):
        read(test)


def test_the_converted_one_keeps_the_times(read: Callable[[object], HealthCheck]) -> None:
    converted = read(["CMD", "curl"]).converted({"Test": ["CMD", "curl"], "Interval": 5}, binary="/app/check")
    assert converted == {"Test": ["CMD", "/app/check", ARGUMENT], "Interval": 5}
