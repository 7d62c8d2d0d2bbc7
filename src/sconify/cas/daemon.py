"""Processes that outlive the command that started them, and how they are found again.

A process is known by its number *and* its start time (in this boot), so that another process that got the same number
later is never taken for it. Signals go through a pidfd, which can't come to mean another process.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sconify
from sconify.errors import ServiceError

_STOP_TIMEOUT = 5.0
_LOG_TAIL = 2000
# The environment of whoever converted an image may hold secrets that a process that stays should not.
_PASSED_VARIABLES = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")
_PACKAGE_PARENT = Path(sconify.__file__).parents[1]  # so that it runs the same version, from whatever place


@dataclass(frozen=True)
class Daemon:
    """A process that was started detached."""

    pid: int
    start_time: str
    """Boot id and start time in clock ticks since that boot, as ``BOOT/TICKS``."""
    log: Path

    @classmethod
    def start(cls, arguments: Sequence[str], *, log: Path, ready_fd: int) -> Daemon:
        """Start a service of this program in a session of its own.

        Args:
            arguments: Arguments of ``sconify``, of a command that has ``--ready-fd``.
            log: Gets what it prints, mode 0600; appended to.
            ready_fd: The writing end of a pipe, which the service takes over: it writes a line when it serves.

        Raises:
            ServiceError: It can't be started.
        """
        command = [sys.executable, "-P", "-m", "sconify.cli.main", *arguments, f"--ready-fd={ready_fd}"]
        environment = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as output:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=log.parent,
                    env=environment | {"PYTHONPATH": str(_PACKAGE_PARENT)},
                    start_new_session=True,
                    pass_fds=[ready_fd],
                )
        except OSError as error:
            raise ServiceError(f"{log.stem} can't be started: {error.strerror}", remedy="see the disk") from error
        start_time = _start_time(process.pid)
        if start_time is None:
            raise ServiceError(f"{log.stem} ended at once", remedy=f"see {log}")
        return cls(process.pid, start_time, log)

    @classmethod
    def from_json(cls, document: Any, *, log: Path) -> Daemon:
        """Read what `to_json` gave.

        Raises:
            ValueError: It is something else.
        """
        match document:
            case {"pid": int(pid), "start_time": str(start_time)} if pid > 1:
                return cls(pid, start_time, log)
        raise ValueError("no process")

    def to_json(self) -> dict[str, object]:
        """Return what a later command needs to find this process."""
        return {"pid": self.pid, "start_time": self.start_time}

    def is_alive(self) -> bool:
        """Tell whether this very process still runs."""
        return _start_time(self.pid) == self.start_time

    def stop(self) -> bool:
        """End the process, and wait until it has ended.

        Returns:
            Whether it ran.
        """
        with ExitStack() as stack:
            try:
                pidfd = os.pidfd_open(self.pid)
            except ProcessLookupError:
                return False
            stack.callback(os.close, pidfd)
            if not self.is_alive():  # asked after the pidfd was made, so the answer holds for it
                return False
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)
                if select.select([pidfd], [], [], _STOP_TIMEOUT)[0]:
                    break
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)  # when it is a child of this process
        return True

    def log_tail(self) -> str:
        """Return the end of what it printed, fit for a message."""
        try:
            text = self.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")
        except OSError:
            return ""
        return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).strip()


def _start_time(pid: int) -> str | None:
    """Return boot and start time of a process, or None when there is no such process that still runs."""
    try:
        # The second field, the name, is in parentheses and may hold anything.
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return None
    ticks = fields[18]  # field 22 of proc(5); `state` is field 3
    return None if re.fullmatch("[ZX]", state) else f"{boot}/{ticks}"
