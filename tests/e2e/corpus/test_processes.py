"""Users, terminals, debuggers and sudden death: what containers are used with beside their programs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import DOCKER, Container, run
from tests.e2e.corpus.conftest import MakePair, Pair, run_to_end
from tests.e2e.corpus.engines import Way, ways
from tests.e2e.corpus.native import PROGRAMS, debian
from tests.e2e.corpus.services import LIBRARIES, Recipe

pytestmark = [pytest.mark.docker, pytest.mark.corpus]

PACKAGES = ("gdb", "gosu", "procps", "strace", "util-linux")
TOOLS = ("/usr/sbin/gosu", "/usr/bin/setpriv", "/usr/bin/id", "/bin/cat", "/bin/sh", "/usr/bin/perl", "/bin/sleep",
         "/usr/bin/strace", "/usr/bin/head", "/bin/grep", "/bin/ps", "/bin/stty", "/usr/bin/tty",
         "/bin/true", "/usr/bin/tail", "/bin/mv")  # fmt: skip
SECRET = "canary-of-the-processes"


@pytest.fixture(scope="module")
def bash(pair: MakePair, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """An image whose program is a shell; its command is what differs."""

    def make(name: str, command: str) -> Pair:
        dockerfile = (
            f"FROM {debian(PACKAGES)}\nCOPY identities.sh /app/\nCOPY refused.pl /app/\n"
            f"RUN mkdir /data && echo {SECRET} > /data/open && echo closed > /data/closed && chmod 600 /data/closed\n"
            f"CMD {command}\n"
        )
        trees = ("--dir=/app", "--dir=/data", LIBRARIES)
        options = ("--binary=/bin/bash", *trees, *(f"--plain-file={path}" for path in TOOLS))
        files = {name: PROGRAMS / name for name in ("identities.sh", "refused.pl")}
        return pair(Recipe(f"shell-{name}", dockerfile, options, files))

    return make


@pytest.mark.parametrize("way", ways("docker-plain"), indirect=True)
def test_users_are_changed_as_natively(bash: Callable[..., Pair], way: Way) -> None:
    native, encrypted = bash("users", '["/bin/bash", "/app/identities.sh"]').outcomes(way)
    assert encrypted == native
    assert native.output.count(SECRET) >= 12 or way.mode.keeps_its_user


@pytest.mark.parametrize("way", ways("docker-plain"), indirect=True)
def test_only_the_program_s_own_processes_are_found(bash: Callable[..., Pair], way: Way) -> None:
    """A number of the supervisor's threads in a PID file of the last run names no process."""
    look = "for i in {2..400}; do kill -0 $i 2>/dev/null && [ $i != $$ ] && echo $i; done; kill -0 $$ && echo self"
    native, encrypted = bash("alive", json.dumps(["/bin/bash", "-c", look])).outcomes(way)
    assert native.output == "self\n"
    assert encrypted == native


def test_calls_around_the_shield_are_refused(bash: Callable[..., Pair]) -> None:
    image = bash("refused", '["/bin/bash", "-c", "perl /app/refused.pl"]').encrypted
    assert run_to_end(DOCKER, image, timeout=60).output.splitlines() == [
        "clone3 error 38",
        "fsopen error 38",
        "io_uring_setup error 38",
        "memfd ok",
        "mount error 1",
        "open_by_handle_at error 38",
        "openat2 error 22",
        "personality ok",
        "pivot_root error 38",
        "ptrace_me ok",
        "setns error 1",
        "unshare_mnt error 1",
        "unshare_user error 1",
    ]


@pytest.mark.parametrize("way", ways("docker-plain"), indirect=True)
def test_a_log_is_followed(bash: Callable[..., Pair], way: Way) -> None:
    """``tail`` learns of what is written, and that the log was replaced, by inotify."""
    follow = (
        "cd /dev/shm; echo zero > log; tail -n 1 -F log 2>/dev/null & sleep 0.7; echo one >> log; sleep 0.7; "
        "mv log old; echo two > log; sleep 1.5; echo three >> log; sleep 0.7; kill %1"
    )
    native, encrypted = bash("follow", json.dumps(["/bin/bash", "-c", follow])).outcomes(way)
    assert native.output == "zero\none\ntwo\nthree\n"
    assert encrypted == native


def talk(image: str, lines: list[tuple[str, str]]) -> list[str]:
    """Type lines into ``docker run -it`` and return what the terminal shows for each until its pattern appears."""
    ours, theirs = pty.openpty()
    name = f"sconify-corpus-terminal-{os.getpid()}-{time.monotonic_ns()}"
    child = subprocess.Popen(
        ["docker", "run", "--rm", "-it", "--name", name, image],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown: list[str] = []
    try:
        for line, pattern in lines:
            os.write(ours, line.encode())
            text, deadline = "", time.monotonic() + 20
            while not re.search(pattern, text):
                if time.monotonic() > deadline:
                    pytest.fail(
                        f"after {line!r} the terminal of {image} shows {text!r}, expected {pattern}; before: {shown}"
                    )
                if select.select([ours], [], [], 0.2)[0]:
                    text += os.read(ours, 65536).decode(errors="replace")
                    text = re.sub(r"\x1b\[[?0-9;]*[a-zA-Z]|\r", "", text)
            shown.append(text)
        child.wait(timeout=20)
    finally:
        run("docker", "rm", "--force", name, check=False)
        child.wait()
        os.close(ours)
    return shown


def test_terminals_have_job_control(bash: Callable[..., Pair]) -> None:
    made = bash("terminal", '["/bin/bash", "--norc", "-i"]')
    for image in (made.native, made.encrypted):
        talk(
            image,
            [
                ("PS1='ready''> '\n", "ready> "),
                ("tty; stty size\n", r"/dev/pts/\d+\s+\d+ \d+\s+ready> "),
                ("sh -c 'echo go; exec sleep 100'\n", r"\ngo\n"),
                ("\x03", "ready> "),
                ("echo code $?\n", r"code 130\s+ready> "),
                ("sh -c 'echo go; exec sleep 200'\n", r"\ngo\n"),
                ("\x1a", r"Stopped.*\nready> "),
                ("bg; jobs\n", r"Running.*\nready> "),
                ("fg\n", r"fg\nsh -c"),
                ("\x03", "ready> "),
                ("cat /data/open\n", rf"{SECRET}\s+ready> "),
                ("exit 3\n", "exit"),
            ],
        )


@pytest.mark.parametrize("way", ways("docker-plain"), indirect=True)
def test_a_running_program_can_be_traced_by_its_own(bash: Callable[..., Pair], way: Way) -> None:
    script = (
        "(while :; do cat /data/open >/dev/null; sleep 0.2; done) & sleep 0.3; "
        "strace -p $! -e trace=clone,wait4 -o /dev/stdout & sleep 1; kill %2; wait %2; kill %1; echo end"
    )
    made = bash("strace", f'["/bin/bash", "-c", "{script}"]')
    for outcome in made.outcomes(way):
        assert "clone(" in outcome.output
        assert outcome.output.endswith("end\n")


def test_nothing_survives_the_supervisor(bash: Callable[..., Pair], start: Callable[..., Container]) -> None:
    script = (
        "trap '' TERM HUP; (trap '' TERM HUP; while :; do sleep 987654 || exit; done) & while :; do sleep 987654; done"
    )
    image = bash("survivors", f'["/bin/bash", "-c", "{script}"]').encrypted
    for options in ((), ("--init",), ("--pid=host",)):
        container = start(image, *options)
        deadline = time.monotonic() + 20
        while len(ours := processes("sleep 987654")) < 2:
            assert time.monotonic() < deadline, container.logs()
            time.sleep(0.1)
        first = run("docker", "inspect", "--format", "{{.State.Pid}}", container.name).stdout.strip()
        victim = child_of(first) if "--init" in options else first
        run("kill", "-KILL", victim)
        run("docker", "wait", container.name, timeout=20)
        assert ours & processes("sleep 987654") == set()


def processes(command: str) -> set[int]:
    """The processes of this machine with this command line."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words.strip() == command:
            found.add(int(path.name))
    return found


def child_of(process: str) -> str:
    """The first child of a process."""
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()[0]


def test_exec_shows_no_plaintext(bash: Callable[..., Pair], start: Callable[..., Container]) -> None:
    made = bash("exec", '["/bin/bash", "-c", "while :; do sleep 1; done"]')
    container = start(made.encrypted)
    time.sleep(1)
    shown = run("docker", "exec", container.name, "/bin/cat", "/data/open", check=False)
    assert SECRET not in shown.stdout
    assert shown.returncode != 0
