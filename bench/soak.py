"""Loads nginx and PostgreSQL for a long time while their workers are killed at random: ``make soak MINUTES=60``.

Fails if the load stops, or if the supervisor's memory, descriptors or threads grow from the first third to the last.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.flask import BIN, quiet
from bench.runtime import connects, make, number, serving
from tests.e2e.corpus import services

INTERVAL = 10
"""Seconds between two looks."""

GROWTH = {"memory": 8_000_000, "descriptors": 512, "threads": 4}
"""How much a figure may grow: the supervisor keeps up to 256 memories of threads and 256 directories open."""


@dataclass
class Watched:
    """The supervisor of one container, by its process id on this machine."""

    name: str
    process: int
    figures: dict[str, list[int]] = field(default_factory=dict)

    def look(self) -> None:
        """Note anonymous memory in bytes, descriptors and threads."""
        status = Path(f"/proc/{self.process}/status").read_text()
        now = {
            "memory": int(number(r"RssAnon:\s*(\d+)", status)) * 1024,
            "descriptors": len(list(Path(f"/proc/{self.process}/fd").iterdir())),
            "threads": int(number(r"Threads:\s*(\d+)", status)),
        }
        for figure, value in now.items():
            self.figures.setdefault(figure, []).append(value)

    def judge(self) -> bool:
        """Print first and last thirds; return whether nothing grew too much."""
        good = True
        for figure, values in self.figures.items():
            third = max(1, len(values) // 3)
            first, last = statistics.median(values[:third]), statistics.median(values[-third:])
            fine = last - first <= GROWTH[figure]
            good &= fine
            verdict = "" if fine else f" grew by more than {GROWTH[figure]}"
            print(f"{self.name}, {figure}: {first:.0f} at first, {last:.0f} at last, most {max(values)}{verdict}")
        return good


def supervisor(where: str) -> int:
    """Return the process id of the container with this address: its first process is the supervisor."""
    format_text = "{{.State.Pid}} {{.NetworkSettings.IPAddress}}"
    names = quiet("docker", "ps", "--quiet").split()
    for line in quiet("docker", "inspect", "--format", format_text, *names).splitlines():
        process, _, address = line.partition(" ")
        if address == where:
            return int(process)
    sys.exit(f"no container has the address {where}")


def descendants(process: int) -> list[tuple[int, str]]:
    """Return the processes below one, with their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(number(r"PPid:\s*(\d+)", (path / "status").read_text()))
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if parent == process:
            found.append((int(path.name), words))
            found.extend(descendants(int(path.name)))
    return found


def kill_one(process: int, pattern: str, number_of_signal: signal.Signals) -> bool:
    """Kill one worker at random; return whether there was one."""
    workers = [worker for worker, words in descendants(process) if pattern in words]
    if workers:
        os.kill(random.choice(workers), number_of_signal)
    return bool(workers)


def soak(minutes: float, environment: dict[str, str]) -> bool:
    """Load both services; return whether all went well."""
    with tempfile.TemporaryDirectory() as work:
        nginx = make(services.nginx(Path(work)), environment)[1]
    native, postgres = make(services.postgres(), environment)
    with ExitStack() as stack:
        web = stack.enter_context(serving(nginx, connects(8080)))
        database = stack.enter_context(serving(postgres, connects(5432)))
        watched = [Watched("nginx", supervisor(web)), Watched("PostgreSQL", supervisor(database))]
        bench = ("docker", "run", "--rm", f"--entrypoint={services.POSTGRES_PROGRAMS}/pgbench", native, "-h", database,
                 "-U", "postgres")  # fmt: skip
        quiet(*bench, "-i", "-q", "-s", "2", "postgres")
        end = time.monotonic() + 60 * minutes
        totals = {"requests": 0.0, "transactions": 0.0, "kills": 0.0}
        while time.monotonic() < end:
            load = [
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for command in (
                    ["wrk", "-t1", "-c4", f"-d{INTERVAL}s", f"http://{web}:8080/{random.choice(['1k', '64k', '1m'])}"],
                    # A new connection, hence a new process, for each transaction.
                    [*bench, "-C", "-c", "2", "-T", str(INTERVAL), "-n", "postgres"],
                )
            ]
            time.sleep(random.uniform(1, INTERVAL - 2))
            totals["kills"] += kill_one(watched[0].process, "worker process", signal.SIGKILL)
            totals["kills"] += kill_one(watched[1].process, "walwriter", signal.SIGTERM)
            outputs = [each.communicate(timeout=6 * INTERVAL)[0] for each in load]
            totals["requests"] += number(r"(\d+) requests in", outputs[0])
            totals["transactions"] += number(r"actually processed: (\d+)", outputs[1])
            for each in watched:
                each.look()
        print(", ".join(f"{value:.0f} {name}" for name, value in totals.items()))
        judged = [each.judge() for each in watched]
        return all(judged)


def main() -> None:
    """Run, and exit with 1 if something grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    minutes = parser.parse_args().minutes
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home}
        try:
            good = soak(minutes, environment)
        finally:
            quiet(str(BIN / "sconify"), "embedded", "stop", environment=environment)
    sys.exit(not good)


if __name__ == "__main__":
    main()
