"""Loads nginx and PostgreSQL for a long time while their workers are killed at random: ``make soak MINUTES=60``.

Fails if the load stops, or if the supervisor's memory, descriptors or threads, or the memory that holds the
containers' files, grow. The first third of the time warms up: until its end all that is kept for reuse has reached its
size. What is kept comes and goes, so the least of the second third is compared to the least of the last: a leak lifts
both.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench.flask import BIN, quiet
from bench.runtime import connects, make, number, serving, wait_for
from tests.e2e.corpus import services

INTERVAL = 10
"""Seconds between two looks."""

CRASH_EVERY = 18
"""Looks between two kills that make all of PostgreSQL's processes start anew."""

GROWTH = {"memory": 1 << 20, "descriptors": 16, "threads": 2, "files": 16 << 20}
"""How much the least of a figure may grow from the second third to the last: bytes, numbers."""

SMALL = ("shared_buffers=16MB", "min_wal_size=32MB", "max_wal_size=64MB")
"""Settings of a PostgreSQL that soon has all the memory that it ever takes."""

SIZE = """
SELECT (SELECT sum(pg_database_size(oid)) FROM pg_database) + (SELECT sum(size) FROM pg_ls_waldir())
"""
"""How many bytes PostgreSQL's own files have, as it sees them."""


@dataclass
class Watched:
    """The supervisor of one container, by its process id on this machine."""

    name: str
    process: int
    own: Callable[[], int] = lambda: 0
    """Bytes that the program's files have by its own account."""
    figures: dict[str, list[int]] = field(default_factory=dict)
    kinds: list[Counter[str]] = field(default_factory=list)
    """What the descriptors are."""

    def look(self) -> None:
        """Note anonymous memory in bytes, descriptors, threads, and the bytes in memory that no file accounts for."""
        status = Path(f"/proc/{self.process}/status").read_text()
        self.kinds.append(descriptors(self.process))
        now = {
            "memory": int(number(r"RssAnon:\s*(\d+)", status)) * 1024,
            "descriptors": self.kinds[-1].total(),
            "threads": int(number(r"Threads:\s*(\d+)", status)),
            "files": shared_memory(self.process) - self.own(),
        }
        for figure, value in now.items():
            self.figures.setdefault(figure, []).append(value)

    def judge(self) -> bool:
        """Print the least of the second and the last thirds; return whether nothing grew too much."""
        good = True
        for figure, values in self.figures.items():
            third = max(1, len(values) // 3)
            before, after = min(values[third : 2 * third] or values), min(values[-third:])
            fine = after - before <= GROWTH[figure]
            good &= fine
            verdict = "" if fine else f": it grew by more than {GROWTH[figure]}"
            print(f"{self.name}, {figure}: {values[0]} at first, then at least {before}, at last at least {after}, "
                  f"most {max(values)}{verdict}")  # fmt: skip
            if figure == "descriptors" and not fine:
                grown = self.kinds[-1] - self.kinds[len(self.kinds) // 2]
                print(f"  what grew: {dict(grown.most_common(8))}")
        return good


def descriptors(process: int) -> Counter[str]:
    """Count the descriptors of a process by what they are."""
    found: Counter[str] = Counter()
    for descriptor in Path(f"/proc/{process}/fd").iterdir():
        try:
            found[re.sub(r"\d+", "N", str(descriptor.readlink()))] += 1
        except FileNotFoundError:
            continue  # closed since
    return found


def shared_memory(process: int) -> int:
    """Return the bytes of memory files and of shared memory that the container of a process holds."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        top = {"memory": "/sys/fs/cgroup/memory", "": "/sys/fs/cgroup"}.get(controllers)
        statistics = Path(f"{top}{path}/memory.stat")
        if top is not None and statistics.is_file():
            text = "\n" + statistics.read_text()
            return int(number(r"\n(?:total_)?shmem (\d+)", text))
    sys.exit(f"the memory of the container of process {process} is not accounted for in /sys/fs/cgroup")


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
    native, postgres = make(services.postgres(*SMALL), environment)
    with ExitStack() as stack:
        web = stack.enter_context(serving(nginx, connects(8080)))
        database = stack.enter_context(serving(postgres, connects(5432)))

        def client(program: str) -> tuple[str, ...]:
            command = f"{services.POSTGRES_PROGRAMS}/{program}"
            return ("docker", "run", "--rm", f"--entrypoint={command}", native, "-h", database, "-U", "postgres")

        watched = [
            Watched("nginx", supervisor(web)),
            Watched("PostgreSQL", supervisor(database), lambda: int(quiet(*client("psql"), "-Atc", SIZE))),
        ]
        bench = client("pgbench")
        quiet(*bench, "-i", "-q", "-s", "2", "postgres")
        end = time.monotonic() + 60 * minutes
        totals: Counter[str] = Counter()
        while time.monotonic() < end:
            size = random.choice(list(services.NGINX_FILES))
            load = [
                subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                for command in (
                    ["wrk", "-t1", "-c4", f"-d{INTERVAL}s", f"http://{web}:8080/{size}"],
                    # A new connection, hence a new process, for each transaction.
                    [*bench, "-C", "-c", "2", "-T", str(INTERVAL), "-n", "postgres"],
                )
            ]
            time.sleep(random.uniform(1, INTERVAL - 2))
            totals["kills"] += kill_one(watched[0].process, "worker process", signal.SIGKILL)
            totals["kills"] += kill_one(watched[1].process, "walwriter", signal.SIGTERM)
            outputs = [each.communicate(timeout=6 * INTERVAL)[0] for each in load]
            totals["requests"] += int(number(r"(\d+) requests in", outputs[0]))
            totals["transactions"] += int(number(r"actually processed: (\d+)", outputs[1]))
            for each in watched:
                each.look()
            if len(watched[1].kinds) % CRASH_EVERY == 0:
                totals["crashes"] += kill_one(watched[1].process, "checkpointer", signal.SIGKILL)
                wait_for(lambda: quiet(*client("psql"), "-c", "SELECT 1"))
        print(", ".join(f"{value} {name}" for name, value in totals.items()))
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
