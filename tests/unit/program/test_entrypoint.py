from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.program.binary import load_program
from sconify.program.entrypoint import Command, derive_command
from sconify.program.view import RootView

MakeView = Callable[..., RootView]
MakeElf = Callable[..., bytes]
BOTH = 'give --binary=PATH and --command="PROGRAM ARGUMENTS"'


@pytest.fixture
def view(make_view: MakeView, make_elf: MakeElf) -> RootView:
    elf = make_elf(interpreter="/lib64/ld-linux-x86-64.so.2")
    return make_view(
        {
            "/usr/bin/python3.11": elf,
            "/usr/bin/python3": "python3.11",
            "/usr/bin/redis-server": elf,
            "/bin/dash": elf,
            "/bin/sh": "dash",
            "/bin/busybox": elf,
            "/bin/ash": "busybox",
            "/bin/ls": "busybox",
            "/app/run.py": b"#!/usr/bin/env python3\n",
            "/app/run-b.py": b"#!/usr/bin/python3 -B\n",
            "/usr/local/bin/serve": b"#!/usr/bin/python3\n",
            "/docker-entrypoint.sh": b'#!/bin/sh\nset -e\nexec "$@"\n',
            "/loop": b"#!/loop\n",
        }
    )


def derive(
    view: RootView,
    *,
    binary: str | None = "/usr/bin/python3.11",
    entrypoint: Sequence[str] = (),
    cmd: Sequence[str] = (),
    command: str | None = None,
) -> Command:
    program = None if binary is None else load_program(view, binary, environment={}, working_dir="/app")
    return derive_command(
        view,
        program=program,
        entrypoint=entrypoint,
        cmd=cmd,
        command=command,
        environment={},
        working_dir="/app",
    )


def refusal(
    view: RootView, *entrypoint: str, cmd: Sequence[str] = (), binary: str | None = "/usr/bin/python3.11"
) -> tuple[str, str | None]:
    with pytest.raises(UserError) as error:
        derive(view, entrypoint=entrypoint, cmd=cmd, binary=binary)
    assert "\n" not in error.value.what
    return error.value.what, error.value.remedy


@pytest.mark.parametrize(
    ("entrypoint", "cmd", "argv"),
    [
        (["python3", "-B"], ["app.py"], ["python3", "-B", "app.py"]),
        ([], ["/usr/bin/python3.11", "app.py"], ["/usr/bin/python3.11", "app.py"]),
        (["/bin/sh", "-c", "python3 -B app.py"], [], ["python3", "-B", "app.py"]),
        (["/bin/sh", "-c", "exec python3 'a b.py'"], ["ignored"], ["python3", "a b.py"]),
        (["sh", "-ec", "python3 app.py"], [], ["python3", "app.py"]),
        (["sh", "-e", "-o", "pipefail", "-c", "--", "python3 app.py"], [], ["python3", "app.py"]),
        (["/bin/busybox", "ash", "-c", "python3 app.py"], [], ["python3", "app.py"]),
        (["/bin/ash", "-c", "sh -c 'python3 app.py'"], [], ["python3", "app.py"]),
        (["./run.py"], ["--port", "80"], ["python3", "./run.py", "--port", "80"]),
        (["/app/run-b.py"], [], ["/usr/bin/python3", "-B", "/app/run-b.py"]),
        (["serve"], ["x"], ["/usr/bin/python3", "/usr/local/bin/serve", "x"]),
        (["sh", "-c", "./run-b.py -x"], [], ["/usr/bin/python3", "-B", "./run-b.py", "-x"]),
    ],
)
def test_entrypoint_becomes_the_argv_of_the_program(
    view: RootView, entrypoint: list[str], cmd: list[str], argv: list[str]
) -> None:
    assert list(derive(view, entrypoint=entrypoint, cmd=cmd).argv) == argv


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=5))
def test_shell_form_gives_back_any_quoted_argv(view: RootView, arguments: list[str]) -> None:
    argv = ["python3", *arguments]
    assert list(derive(view, entrypoint=["/bin/sh", "-c", shlex.join(argv)]).argv) == argv


def test_reasons(view: RootView) -> None:
    assert derive(view, command="x y").reason == "given by --command"
    assert derive(view, entrypoint=["python3"]).reason == "Entrypoint of the image"
    assert derive(view, cmd=["python3"]).reason == "Cmd of the image"
    assert derive(view, entrypoint=["sh", "-c", "./run.py"], cmd=["x"]).reason == (
        "Entrypoint and Cmd of the image, taken out of its shell, /app/run.py run by its interpreter"
    )


def test_an_explicit_command_is_taken_as_it_is(view: RootView) -> None:
    command = derive(view, entrypoint=["/bin/sh", "-c", "a | b"], command="anything 'a b' '$HOME'")
    assert command.argv == ("anything", "a b", "$HOME")


def test_a_shell_may_be_the_program_itself(view: RootView) -> None:
    argv = ["/bin/sh", "-c", "a | b"]
    assert list(derive(view, binary="/bin/dash", entrypoint=argv).argv) == argv
    assert derive(view, binary="/bin/busybox", entrypoint=["ls"]).argv == ("ls",)
    assert derive(view, binary="/bin/sh", entrypoint=["/docker-entrypoint.sh"], command="x").argv == ("x",)


def test_without_a_binary_the_argv_stands(view: RootView) -> None:
    assert derive(view, binary=None, entrypoint=["sh", "-c", "redis-server --port 1"]).argv == (
        "redis-server",
        "--port",
        "1",
    )


def test_no_command_at_all(view: RootView) -> None:
    assert refusal(view) == (
        "the image has neither Entrypoint nor Cmd, expected one of them to name the program",
        'give --command="PROGRAM ARGUMENTS"',
    )


def test_another_program_is_refused_with_both_names(view: RootView) -> None:
    assert refusal(view, "redis-server", "--port", "1", binary="python3") == (
        "the image starts redis-server --port 1, which runs /usr/bin/redis-server, but --binary is /usr/bin/python3.11",
        'give --binary=/usr/bin/redis-server, or --command="/usr/bin/python3 ARGUMENTS"',
    )


def test_a_tool_of_busybox_is_another_program_and_no_shell(view: RootView) -> None:
    what, _ = refusal(view, "ls", "-l")
    assert what == "the image starts ls -l, which runs /bin/busybox, but --binary is /usr/bin/python3.11"


def test_a_program_that_is_not_there(view: RootView) -> None:
    what, remedy = refusal(view, "gunicorn", "app:app")
    assert what.startswith("the image starts gunicorn app:app, but gunicorn is in no directory of the image's PATH (")
    assert remedy == BOTH


@pytest.mark.parametrize(
    ("script", "construct"),
    [
        ("python3 app.py --port $PORT", "an expansion ($)"),
        ("cd /app && python3 app.py", "a background or conditional command (&)"),
        ('exec "$@"', "an expansion ($)"),
        ("PORT=80 python3 app.py", "a variable assignment (PORT=)"),
        ("python3 app.py > log", "a redirection (>)"),
    ],
)
def test_what_needs_a_shell_is_refused_by_name(view: RootView, script: str, construct: str) -> None:
    shown = shlex.join(["/bin/sh", "-c", script])
    assert refusal(view, "/bin/sh", "-c", script) == (
        f"the image starts {shown}, which needs a shell for {construct}; expected one simple command",
        'give --command="/usr/bin/python3.11 ARGUMENTS" with the arguments written out',
    )


def test_shell_scripts_are_refused_with_the_program_they_would_start(view: RootView) -> None:
    start = "give --binary=PATH with the program that the script starts, and "
    message = "/docker-entrypoint.sh, which the image starts, is a shell script (/bin/sh), expected a program"
    assert refusal(view, "/docker-entrypoint.sh") == (message, start + '--command="PROGRAM ARGUMENTS"')
    assert refusal(view, "/docker-entrypoint.sh", cmd=["redis-server", "a b"]) == (
        message,
        start + "--command=\"redis-server 'a b'\"",
    )
    assert refusal(view, "/docker-entrypoint.sh", cmd=["echo", "$HOME"])[1] == start + '--command="PROGRAM ARGUMENTS"'
    assert refusal(view, "sh", "/docker-entrypoint.sh") == (
        "the image starts the shell script /docker-entrypoint.sh (sh /docker-entrypoint.sh), expected a program",
        BOTH,
    )


def test_shells_that_do_more_than_run_one_command(view: RootView) -> None:
    assert refusal(view, "sh") == ("the image starts an interactive shell (sh), expected a program", BOTH)
    assert refusal(view, "sh", "-lc", "python3") == (
        "the image starts sh -lc python3, and the shell's option -lc changes how the command runs",
        BOTH,
    )
    assert refusal(view, "/loop") == (
        "/loop /loop /loop /loop /loop /loop /loop /loop /loop is still no program after 8 shells and scripts",
        BOTH,
    )


def test_long_and_odd_arguments_stay_one_line(view: RootView) -> None:
    what, _ = refusal(view, "redis-server", "a\nb\udc80\x1b[2J", "x" * 1000)
    assert "a\\nb\\udc80\\x1b[2J" in what
    assert len(what) < 400
