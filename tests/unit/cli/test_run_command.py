from __future__ import annotations

import errno
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import click
import pytest

from sconify.cli.errors import run_command
from sconify.errors import BugError, ServiceError, UntrustedDataError, UserError


def run(error: BaseException | None) -> int:
    @click.command()
    def command() -> None:
        if error is not None:
            raise error

    with pytest.raises(SystemExit) as ended:
        run_command(command, "tool", [])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("bad flag", remedy="give --x"), 2, "tool: error: bad flag; give --x\n"),
        (UntrustedDataError("forged"), 3, "tool: error: forged\n"),
        (ServiceError("no CAS"), 4, "tool: error: no CAS\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 4, "tool: error: No space left on device: /x; make"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 4, "tool: error: Permission denied: /x\n"),
        (KeyboardInterrupt(), 130, "tool: stopped\n"),
        (click.Abort(), 130, "tool: stopped\n"),
        (click.exceptions.Exit(7), 7, ""),
        (click.BadParameter("bad"), 2, "tool: error: Invalid value: bad; see `tool --help`\n"),
        (None, 0, ""),
    ],
)
def test_each_end_has_its_code_and_message(
    error: BaseException | None, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(error) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert message in shown.err
    assert "Traceback" not in shown.err


def test_causes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    error = UserError("outer", remedy="mend it")
    error.__cause__ = ServiceError("inner")
    run(error)
    shown = capsys.readouterr().err
    assert shown.startswith("tool: error: outer")
    assert "\n  Caused by: inner\n" in shown
    assert "mend it" in shown


@pytest.mark.parametrize("error", [ZeroDivisionError("division"), BugError("can't be"), RecursionError()])
def test_bug_keeps_its_traceback_in_a_private_file(
    error: Exception, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(error) == 70
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    named = re.search(r"traceback in (\S+):", shown)
    assert named is not None
    path = Path(named[1])
    assert path.parent == tmp_path
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert type(error).__name__ in path.read_text()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_clean_up_first(number: signal.Signals, code: int) -> None:
    script = """
import sys, time, click
from sconify.cli.errors import run_command
@click.command()
def command():
    try:
        print("ready", flush=True)
        for _ in range(600):  # a signal that comes just before a sleep begins is noticed after it
            time.sleep(0.1)
    finally:
        print("cleaned", flush=True)
run_command(command, "tool", [])
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.kill(process.pid, number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert out == b"cleaned\n"
    assert b"Traceback" not in err
