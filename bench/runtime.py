"""Measures the runtime against native containers in one run, and prints ratios: ``make bench-runtime``.

Single calls, files of three sizes, ``import flask``, the start of a service, and the throughput of nginx, redis,
PostgreSQL and Flask. Native and encrypted take turns, so that the machine's moods hit both; figures are medians.
Behind each figure stands its target and whether it is met.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.flask import (
    BIN,
    NATIVE,
    PROJECT,
    SERVICE,
    alternate,
    convert,
    image_that_imports_flask,
    import_flask,
    quiet,
    start,
)
from tests.e2e.corpus import services
from tests.e2e.corpus.native import build
from tests.e2e.corpus.services import Recipe

SIZES = {"4k": 4 << 10, "1m": 1 << 20, "100m": 100 << 20}
CALLS = 2000
READER = """#include <stdio.h>
int main(void) { char text[16]; return fread(text, 1, sizeof text, fopen("/data/first", "r")) != sizeof text; }
"""


@dataclass(frozen=True)
class Target:
    """What is wanted of a figure; ``met`` gets the native and the encrypted median."""

    text: str
    met: Callable[[float, float], bool]


def at_most(microseconds: float) -> Target:
    """Want a call to cost no more than the best of a bare supervisor: it is woken and answers."""
    return Target(f"<= {microseconds:g} us", lambda _, ours: ours <= microseconds)


def times_native(most: float) -> Target:
    """Want a time that is a multiple of the native one at most."""
    return Target(f"<= {most:g} of native", lambda native, ours: ours <= most * native)


def more_than_native(milliseconds: float) -> Target:
    """Want a time that is longer than the native one by so much at most."""
    return Target(f"<= native + {milliseconds:g} ms", lambda native, ours: ours <= native + milliseconds)


THROUGHPUT = Target(">= 0.97 of native", lambda native, ours: ours >= 0.97 * native)
COLD_OPEN = Target(">= 1 GB/s per core", lambda _, ours: SIZES["100m"] / ours / 1000 >= 1)
TARGETS = {
    "stat": at_most(14),
    "stat-missing": at_most(14),
    "stat-host": at_most(15),
    "open-host": at_most(15),
    "open": at_most(30),
    "100m second-read": times_native(1.03),
    "100m warm-read": times_native(1.03),
    "100m cold-open, one core": COLD_OPEN,
    "start to first file": more_than_native(100),
    "start to first file, slowest": more_than_native(250),
    "start to first answer": more_than_native(100),
    "start to first answer, slowest": more_than_native(250),
    "import flask": times_native(1.5),
}


def row(name: str, native: list[float], ours: list[float], unit: str, target: Target | None = None) -> None:
    """Print medians and ranges of both, their ratio, and whether the target is met."""
    a, b = statistics.median(native), statistics.median(ours)
    target = target or TARGETS.get(name)
    digits = 0 if b >= 1000 else 1 if b >= 100 else 2
    spans = [
        f"{middle:>10.{digits}f} ({min(all_):.{digits}f}..{max(all_):.{digits}f})"
        for middle, all_ in ((a, native), (b, ours))
    ]
    verdict = "" if target is None else f"{target.text}: {'met' if target.met(a, b) else 'NOT MET'}"
    print(
        f"{name:<32} {unit:<4} native {spans[0]:<28} encrypted {spans[1]:<28} "
        f"{b - a:>+10.{digits}f}  ratio {b / a:<7.3f} {verdict}",
        flush=True,
    )


def address(name: str) -> str:
    """Return the address of a container."""
    return quiet("docker", "inspect", "--format", "{{.NetworkSettings.IPAddress}}", name).strip()


def wait_for(probe: Callable[[], object], attempts: int = 600) -> None:
    """Call ``probe`` until it does not fail any more."""
    for attempt in range(attempts):
        try:
            probe()
        except SystemExit:
            if attempt == attempts - 1:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def serving(image: str, probe: Callable[[str], object]) -> Iterator[str]:
    """Run a service and yield its address once ``probe`` does not fail for it."""
    name = quiet("docker", "run", "--detach", "--rm", image).strip()
    try:
        where = address(name)
        wait_for(lambda: probe(where))
        yield where
    finally:
        quiet("docker", "rm", "--force", name)


def connects(port: int) -> Callable[[str], object]:
    """Return a probe that succeeds when a port takes connections."""
    return lambda where: quiet("bash", "-c", f"exec 3<>/dev/tcp/{where}/{port}")


def make(recipe: Recipe, environment: dict[str, str]) -> tuple[str, str]:
    """Build and convert; return the names of the native and the encrypted image."""
    with tempfile.TemporaryDirectory() as context:
        native = build(recipe.name, recipe.dockerfile, recipe.files, Path(context))
    encrypted = native.replace(":native", ":encrypted")
    command = [str(BIN / "sconify_image"), f"--from={native}", f"--to={encrypted}", "--overwrite", *recipe.options]
    quiet(*command, environment=environment)
    return native, encrypted


def calls_recipe(work: Path) -> Recipe:
    """A static program that times system calls, and files for it."""
    program = work / "calls"
    quiet("cc", "-O2", "-static", "-o", str(program), str(PROJECT / "bench/calls.c"))
    data = work / "data"
    data.mkdir()
    for name, size in SIZES.items():
        (data / name).write_bytes(os.urandom(size))
    command = str(["/calls", str(CALLS), *(f"/data/{name}" for name in SIZES)]).replace("'", '"')
    dockerfile = f"FROM scratch\nCOPY calls /calls\nCOPY data /data\nCMD {command}\n"
    return Recipe("calls", dockerfile, ("--binary=/calls", "--dir=/data"), {"calls": program, "data": data})


def measure_calls(runs: int, environment: dict[str, str]) -> None:
    """Print the time of single calls, and of opening and reading files."""
    with tempfile.TemporaryDirectory() as work:
        images = make(calls_recipe(Path(work)), environment)

    def calls(*options: str) -> dict[str, dict[str, list[float]]]:
        figures: dict[str, dict[str, list[float]]] = {image: {} for image in images}
        for _ in range(runs):
            for image in images:
                for line in quiet("docker", "run", "--rm", *options, image).splitlines():
                    name, _, value = line.rpartition(" ")
                    figures[image].setdefault(name, []).append(float(value) / 1000)
        return figures

    native, encrypted = calls().values()
    for name, values in native.items():
        row(name, values, encrypted[name], "us")
    native, encrypted = calls("--cpuset-cpus=0").values()
    for name in (f"{size} cold-open" for size in SIZES):
        row(f"{name}, one core", native[name], encrypted[name], "us")


def reader_recipe(work: Path) -> Recipe:
    """A static program that reads one protected file and ends."""
    (work / "reader.c").write_text(READER)
    program, first = work / "reader", work / "first"
    quiet("cc", "-O2", "-static", "-o", str(program), str(work / "reader.c"))
    first.write_bytes(os.urandom(16))
    dockerfile = 'FROM scratch\nCOPY reader /reader\nCOPY first /data/first\nCMD ["/reader"]\n'
    return Recipe("reader", dockerfile, ("--binary=/reader", "--dir=/data"), {"reader": program, "first": first})


def measure_start(runs: int, environment: dict[str, str]) -> None:
    """Print what it takes to attest, to get the policy, and to read the first file: a container's whole life."""
    with tempfile.TemporaryDirectory() as work:
        images = make(reader_recipe(Path(work)), environment)

    def whole(image: str) -> float:
        begin = time.monotonic()
        quiet("docker", "run", "--rm", image)
        return (time.monotonic() - begin) * 1000

    native, encrypted = alternate(whole, images, 3 * runs).values()
    row("start to first file", native, encrypted, "ms")
    row("start to first file, slowest", native, [max(encrypted)], "ms")


def throughput(
    name: str,
    images: tuple[str, str],
    probe: Callable[[str], object],
    load: Callable[[str], float],
    runs: int,
    prepare: Callable[[str], object] | None = None,
) -> None:
    """Print requests per second of both images; both serve at the same time and are asked in turn."""
    with serving(images[0], probe) as native, serving(images[1], probe) as encrypted:
        if prepare is not None:
            for where in (native, encrypted):
                prepare(where)
        figures = alternate(load, (native, encrypted), runs)
    row(name, figures[native], figures[encrypted], "/s", THROUGHPUT)


def number(pattern: str, text: str) -> float:
    """Return the number that a load generator reports."""
    match = re.search(pattern, text)
    if match is None:
        sys.exit(f"no {pattern} in\n{text}")
    return float(match[1])


def wrk(url: str, seconds: int) -> Callable[[str], float]:
    """Return a load of eight connections on a URL with ``{}`` for the address."""
    return lambda where: number(
        r"Requests/sec:\s*([\d.]+)", quiet("wrk", "-t1", "-c8", f"-d{seconds}s", url.format(where))
    )


def measure_services(runs: int, seconds: int, environment: dict[str, str]) -> None:
    """Print the throughput of each service."""
    with tempfile.TemporaryDirectory() as work:
        images = make(services.nginx(Path(work)), environment)
    for file in ("1k", "1m", "kept/1k", "kept/1m"):
        load = wrk(f"http://{{}}:8080/{file}", seconds)
        throughput(f"nginx, {file}", images, connects(8080), load, runs)

    images = make(services.redis(), environment)
    client = ("docker", "run", "--rm", "--entrypoint=redis-benchmark", images[0], "-q", "-t", "set", "-P", "4", "-h")

    def redis_load(where: str) -> float:
        return number(r"SET: ([\d.]+) requests per second", quiet(*client, where, "-n", str(60_000 * seconds)))

    throughput("redis, SET with append-only file", images, connects(6379), redis_load, runs)

    images = make(services.postgres(), environment)
    pgbench = (
        "docker",
        "run",
        "--rm",
        f"--entrypoint={services.POSTGRES_PROGRAMS}/pgbench",
        images[0],
        "-U",
        "postgres",
    )

    def postgres_load(where: str) -> float:
        report = quiet(*pgbench, "-h", where, "-c", "4", "-S", "-T", str(seconds), "-n", "postgres")
        return number(r"tps = ([\d.]+)", report)

    def fill(where: str) -> None:
        quiet(*pgbench, "-h", where, "-i", "-q", "-s", "5", "postgres")

    throughput("PostgreSQL, pgbench -S", images, connects(5432), postgres_load, runs, fill)


def main() -> None:
    """Build, convert, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs of each measurement")
    parser.add_argument("--seconds", type=int, default=3, help="seconds of load of each run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home}
        try:
            measure_calls(options.runs, environment)
            measure_start(options.runs, environment)
            measure_flask(options.runs, options.seconds, environment)
            measure_services(options.runs, options.seconds, environment)
        finally:
            quiet(str(BIN / "sconify"), "embedded", "stop", environment=environment)


def measure_flask(runs: int, seconds: int, environment: dict[str, str]) -> None:
    """Print the start of the Flask example, its import, and its throughput."""
    quiet(str(PROJECT / "examples/flask/build.sh"), NATIVE)
    encrypted = "sconify-bench/flask:encrypted"
    convert(NATIVE, encrypted, *SERVICE, environment=environment)
    starts = alternate(start, (NATIVE, encrypted), runs)
    seconds_of = {image: [each.seconds * 1000 for each in starts[image]] for image in starts}
    row("start to first answer", seconds_of[NATIVE], seconds_of[encrypted], "ms")
    row("start to first answer, slowest", seconds_of[NATIVE], [max(seconds_of[encrypted])], "ms")
    processor = {image: [each.cpu * 1000 for each in starts[image]] for image in starts}
    row("start, processor time", processor[NATIVE], processor[encrypted], "ms")
    importing = image_that_imports_flask(NATIVE)
    imported = "sconify-bench/import:encrypted"
    convert(importing, imported, "--dir=/usr/lib/python3", "--dir=/usr/lib/python3.11", environment=environment)
    imports = alternate(import_flask, (importing, imported), runs)
    milliseconds = {image: [each * 1000 for each in imports[image]] for image in imports}
    row("import flask", milliseconds[importing], milliseconds[imported], "ms")
    load = wrk("https://{}:4996/", seconds)
    throughput("Flask over HTTPS", (NATIVE, encrypted), connects(4996), load, runs)


if __name__ == "__main__":
    main()
