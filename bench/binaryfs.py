"""Measures the binary file system against file protection in one run: conversions, starts, throughput.

``python -m bench.binaryfs`` prints medians, ranges and differences. Targets stand in ``TARGETS``. Conversions are
measured from an archive to a layout, which is the converter's own work, and from an engine to it, which takes as much
longer as the engine needs to give the image and to take the other.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from bench.flask import BIN, PROJECT, alternate, convert, first_answer, quiet

NATIVE = "sconify-bench/flask:native"
CHANGED = "sconify-bench/flask:changed"
PROTECTED = "sconify-bench/flask:encrypted"
EMBEDDED = "sconify-bench/flask:embedded"
PROTECT = ("--dir=/app", "--dir=/tls")
FROM_ENGINE = " (from the engine to it)"
EMBED = ("--binary-fs", "--fs-dir=/app", "--fs-dir=/tls", "--host-path=/etc/resolv.conf", "--host-path=/etc/hosts")

TARGETS = {
    "conversion, cold": "at most 6 s",
    "conversion, peak memory": "at most 256 MB",
    "conversion, one file changed": "at most 2 s",
    "start to first answer": "at most 100 ms more than file protection",
    "throughput, 2 GB": "at least 300 MB/s",
}


def show(name: str, seconds: list[float]) -> None:
    """Print median and range in seconds, and the target if there is one of this name."""
    print(
        f"{name}: {statistics.median(seconds):.2f} s ({min(seconds):.2f}..{max(seconds):.2f}), "
        f"{TARGETS.get(name, 'for comparison')}"
    )


def with_one_change(context: Path, number: int) -> None:
    """Make the native image anew with another content of one file."""
    (context / "rest_api.py").write_bytes(
        (PROJECT / "examples/flask/rest_api.py").read_bytes() + f"# change {number} of {time.time_ns()}\n".encode()
    )
    (context / "Dockerfile").write_text(f"FROM {NATIVE}\nCOPY rest_api.py /app/rest_api.py\n")
    quiet("docker", "build", "--quiet", "--tag", CHANGED, str(context))


def saved(image: str, archive: Path) -> float:
    """Have the engine write an image into an archive; return how long that took, in seconds."""
    archive.unlink(missing_ok=True)
    begin = time.monotonic()
    quiet("docker", "save", "--output", str(archive), image)
    return time.monotonic() - begin


def conversions(runs: int, environment: dict[str, str], work: Path) -> None:
    """Convert cold, after a change, and by file protection, in turn, without the engine and with it."""
    figures: dict[str, list[float]] = {}
    memory = 0.0
    cache = Path(environment["HOME"]) / ".cache"
    archive = work / "flask.tar"
    for number in range(runs):
        with_one_change(work, number)
        for place in ("", FROM_ENGINE):
            shutil.rmtree(cache, ignore_errors=True)
            for name, native, options in (
                ("conversion, cold", NATIVE, EMBED),
                ("conversion, one file changed", CHANGED, EMBED),
                ("conversion, file protection", NATIVE, PROTECT),
            ):
                target = EMBEDDED if options is EMBED else PROTECTED
                if not place:
                    figures.setdefault("the engine alone, docker save", []).append(saved(native, archive))
                    native, target = f"docker-archive:{archive}", f"oci:{work}/flask-{options is EMBED}:x"  # noqa: PLW2901
                _, seconds, used = convert(native, target, *options, environment=environment)
                figures.setdefault(name + place, []).append(seconds)
                memory = max(memory, used if options is EMBED else 0)
    for name in sorted(figures):
        show(name, figures[name])
    print(f"conversion, peak memory: {memory:.0f} MB, {TARGETS['conversion, peak memory']}")


def starts(runs: int) -> None:
    """Start containers of both modes in turn."""
    figures = alternate(first_answer, (PROTECTED, EMBEDDED), runs)
    protected, embedded = (statistics.median(figures[image]) * 1000 for image in (PROTECTED, EMBEDDED))
    print(
        f"start to first answer: file protection {protected:.0f} ms, embedded {embedded:.0f} ms, "
        f"{embedded - protected:+.0f} ms, {TARGETS['start to first answer']}"
    )


def big_image(work: Path, size: int) -> Path:
    """Write an OCI archive-able image whose /data has ``size`` bytes, half of them compressible; return its archive."""
    context = work / "big"
    (context / "data").mkdir(parents=True)
    noise = random.Random(1)
    words = [noise.randbytes(7) for _ in range(4096)]
    for number in range(size // (16 << 20)):
        with (context / "data" / f"{number:04}").open("wb") as file:
            file.write(noise.randbytes(8 << 20))
            file.write(b" ".join(noise.choices(words, k=1 << 20)))
    (context / "Dockerfile").write_text(f"FROM {NATIVE}\nCOPY data /data\n")
    quiet("docker", "build", "--quiet", "--tag", "sconify-bench/big:native", str(context))
    shutil.rmtree(context)
    archive = work / "big.tar"
    quiet("docker", "save", "--output", str(archive), "sconify-bench/big:native")
    quiet("docker", "image", "rm", "sconify-bench/big:native")
    return archive


def throughput(size: int, environment: dict[str, str], work: Path) -> None:
    """Convert a big image from an archive to a layout, cold and again."""
    archive = big_image(work, size)
    for name in ("throughput, 2 GB", "throughput, 2 GB, again"):
        target = f"oci:{work}/layout:big"
        os.sync()  # what was written before is not this conversion's
        made, seconds, memory = convert(
            f"docker-archive:{archive}", target, *EMBED, "--fs-dir=/data", environment=environment
        )
        megabytes = float(str(made["chosen_size"])) / 1e6
        listed = cast("list[dict[str, float]]", made["steps"])
        steps = {str(step["name"]): step["seconds"] for step in listed}
        print(
            f"{name}: {megabytes:.0f} MB in {seconds:.2f} s, {megabytes / seconds:.0f} MB/s "
            f"(embedding alone {megabytes / steps['protect']:.0f} MB/s), peak memory {memory:.0f} MB, "
            f"{TARGETS['throughput, 2 GB']}\n  {', '.join(f'{step} {took:.1f} s' for step, took in steps.items())}"
        )


def main() -> None:
    """Build, convert, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7, help="runs of each measurement")
    parser.add_argument("--size", type=int, default=2 << 30, help="bytes of the big image; 0 for none")
    options = parser.parse_args()
    quiet(str(PROJECT / "examples/flask/build.sh"), NATIVE)
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as work:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        environment["HOME"] = home
        steps: list[Callable[[], None]] = [
            lambda: conversions(options.runs, environment, Path(work)),
            lambda: starts(options.runs),
        ]
        if options.size:
            steps.append(lambda: throughput(options.size, environment, Path(work)))
        try:
            # The services that a conversion starts are up before it is measured.
            convert(NATIVE, EMBEDDED, *EMBED, environment=environment)
            for step in steps:
                step()
        finally:
            subprocess.run([str(BIN / "sconify"), "embedded", "stop"], check=False, env=environment)


if __name__ == "__main__":
    main()
