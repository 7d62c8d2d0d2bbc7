"""Measures PostgreSQL on a volume, next to a plain directory and to gocryptfs: ``python -m bench.pgbench DIRECTORY``.

The native server's data is in a directory of the host, plain or mounted by gocryptfs; the encrypted server's is on a
volume. All of them are on one disk, serve at the same time and take turns, so that the machine's moods hit each;
figures are medians. Without FUSE or gocryptfs that comparison is left out, and the output says why.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from bench.flask import BIN, alternate, quiet
from bench.runtime import address, connects, make, number, wait_for
from tests.e2e.corpus import services

DATA = "/var/lib/postgresql"
CLIENTS = 4


@contextmanager
def gocryptfs(scratch: Path) -> Iterator[Path]:
    """Mount an encrypted directory that containers may use, and yield where.

    Raises:
        RuntimeError: if that can't be done here.
    """
    cipher, plain, password = scratch / "cipher", scratch / "gocryptfs", scratch / "password"
    cipher.mkdir()
    plain.mkdir()
    password.write_text("benchmark")
    try:
        for command in (["-init", "-q", "-scryptn=10"], ["-q", "-allow_other"]):
            paths = [str(cipher)] if "-init" in command else [str(cipher), str(plain)]
            words = ["gocryptfs", *command, "-passfile", str(password), *paths]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                lines = done.stderr.strip().splitlines()
                raise RuntimeError(lines[-1] if lines else f"code {done.returncode}")
    except OSError as error:
        raise RuntimeError(str(error)) from error
    try:
        yield plain
    finally:
        subprocess.run(["fusermount", "-u", str(plain)], check=False)


@contextmanager
def serving(image: str, directory: Path, mount: str) -> Iterator[str]:
    """Run a server whose data is in a directory of the host, and yield its address once it takes connections."""
    directory.chmod(0o777)
    words = ["docker", "run", "--detach", f"--volume={directory}:{mount}", image]
    name = quiet(*words).strip()
    try:
        where = address(name)
        wait_for(lambda: connects(5432)(where))
        yield where
    finally:
        quiet("docker", "rm", "--force", name)


def main() -> None:
    """Build, convert, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where the data is put")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement")
    parser.add_argument("--seconds", type=int, default=5, help="seconds of load of each run")
    parser.add_argument("--scale", type=int, default=10, help="size of the database, 15 MB each")
    options = parser.parse_args()
    recipe = services.postgres()
    recipe = dataclasses.replace(recipe, name="postgres-bench", options=(*recipe.options, f"--volume=data:{DATA}"))
    with ExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=options.directory)))
        scratch.chmod(0o755)
        environment = {**os.environ, "HOME": home}
        stack.callback(quiet, str(BIN / "sconify"), "embedded", "stop", environment=environment)
        native, encrypted = make(recipe, environment)
        places = {"plain": scratch / "plain", "volume": scratch / "volume"}
        for place in places.values():
            place.mkdir()
        try:
            places["gocryptfs"] = stack.enter_context(gocryptfs(scratch))
        except RuntimeError as reason:
            print(f"gocryptfs is not compared: {reason}")
        servers = {
            stack.enter_context(serving(encrypted if name == "volume" else native, place, DATA)): name
            for name, place in places.items()
        }
        measure(native, servers, options)


def measure(client: str, servers: dict[str, str], options: argparse.Namespace) -> None:
    """Print transactions per second of servers, named by address; ``client`` is an image that has pgbench."""
    pgbench = ("docker", "run", "--rm", f"--entrypoint={services.POSTGRES_PROGRAMS}/pgbench", client, "-U", "postgres")
    for where in servers:
        wait_for(partial(quiet, *pgbench, "-h", where, "-i", "-q", "-s", str(options.scale), "postgres"))
    modes = {"reads and writes": (), "reads": ("-S",)}
    for title, flags in modes.items():
        load = (*pgbench, "-c", str(CLIENTS), "-T", str(options.seconds), "-n", *flags)

        def rate(where: str, load: tuple[str, ...] = load) -> float:
            return number(r"tps = ([\d.]+)", quiet(*load, "-h", where, "postgres"))

        figures = alternate(rate, tuple(servers), options.runs)
        medians = {name: statistics.median(figures[where]) for where, name in servers.items()}
        rates = ", ".join(f"{name} {median:.0f}/s" for name, median in medians.items())
        others = {name: median for name, median in medians.items() if name != "volume"}
        ratios = ", ".join(f"{medians['volume'] / median:.2f} of {name}" for name, median in others.items())
        print(f"pgbench, {title}: {rates}; volume {ratios}", flush=True)


if __name__ == "__main__":
    main()
