from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sconify.cas.daemon import Daemon
from sconify.errors import ServiceError


def start(arguments: list[str], *, log: Path) -> Daemon:
    ready, write_end = os.pipe()
    try:
        daemon = Daemon.start(arguments, log=log, ready_fd=write_end)
        os.close(write_end)
        os.read(ready, 64)  # ends when it serves, or when it ended
    finally:
        os.close(ready)
    return daemon


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Daemon]:
    """A LAS as an example of a process that stays."""
    daemon = start(["las", "serve", f"--socket={tmp_path / 'las.sock'}"], log=tmp_path / "las.log")
    yield daemon
    daemon.stop()


def test_runs_in_a_session_of_its_own_and_ends_when_stopped(sleeper: Daemon) -> None:
    assert sleeper.is_alive()
    assert os.getsid(sleeper.pid) == sleeper.pid
    assert sleeper.log.stat().st_mode & 0o777 == 0o600
    assert sleeper.stop()
    assert not sleeper.is_alive()
    assert not sleeper.stop()


def test_is_found_again(sleeper: Daemon) -> None:
    again = Daemon.from_json(sleeper.to_json(), log=sleeper.log)
    assert again == sleeper
    assert again.stop()
    assert not sleeper.is_alive()


def test_recycled_number_is_not_taken(sleeper: Daemon) -> None:
    stale = replace(sleeper, start_time=sleeper.start_time + "0")
    assert not stale.is_alive()
    assert not stale.stop()
    assert sleeper.is_alive()


def test_same_ticks_of_another_boot_are_not_taken(sleeper: Daemon) -> None:
    ticks = sleeper.start_time.partition("/")[2]
    assert not replace(sleeper, start_time=f"00000000-0000-0000-0000-000000000000/{ticks}").is_alive()


def test_zombie_is_not_alive(tmp_path: Path) -> None:
    daemon = start(["no-such-command"], log=tmp_path / "x.log")
    os.waitid(os.P_PID, daemon.pid, os.WEXITED | os.WNOWAIT)
    assert not daemon.is_alive()
    assert "no-such-command" in daemon.log_tail()


def test_secrets_of_the_environment_are_not_passed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_TOKEN", "canary")
    daemon = start(["las", "serve", f"--socket={tmp_path / 'las.sock'}"], log=tmp_path / "las.log")
    try:
        assert b"canary" not in Path(f"/proc/{daemon.pid}/environ").read_bytes()
    finally:
        daemon.stop()


@pytest.mark.parametrize(
    "document", [None, {}, [], {"pid": 1, "start_time": "a/1"}, {"pid": -1, "start_time": "a/1"}, {"pid": "2"}]
)
def test_what_is_no_process_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(ValueError, match="no process"):
        Daemon.from_json(document, log=tmp_path / "x.log")


def test_log_is_never_a_symlink(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "las.log").symlink_to(target)
    with pytest.raises(ServiceError, match="can't be started"):
        Daemon.start(["las", "serve"], log=tmp_path / "las.log", ready_fd=1)


def test_outlives_who_started_it(tmp_path: Path) -> None:
    script = (
        "import json, os, pathlib, sys; from sconify.cas.daemon import Daemon;"
        "base, pipe = pathlib.Path(sys.argv[1]), os.pipe();"
        "daemon = Daemon.start(['las', 'serve', f'--socket={base}/s'], log=base / 'las.log', ready_fd=pipe[1]);"
        "os.read(pipe[0], 1);"
        "print(json.dumps(daemon.to_json()))"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True, timeout=60)
    daemon = Daemon.from_json(json.loads(done.stdout), log=tmp_path / "las.log")
    assert daemon.is_alive()
    assert daemon.stop()
