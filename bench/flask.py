"""Measures the Flask example against its native image in one run, and prints ratios: ``make bench``.

Figures are medians; the machine's noise shows in the ranges. Targets stand in ``TARGETS``.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")

PROJECT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
NATIVE = "sconify-bench/flask:native"
ENCRYPTED = "sconify-bench/flask:encrypted"
OPTIONS = ("--binary=/usr/bin/python3", "--overwrite", "--json")
SERVICE = ("--dir=/app", "--dir=/tls")

TARGETS = {
    "conversion": "at most 5 s",
    "conversion, peak memory": "at most 256 MB",
    "start to first answer": "at most 100 ms more than native",
    "import flask": "at most 1.5 times native",
    "output size": "at most the chosen files + 10 MB",
}


def quiet(*command: str, environment: dict[str, str] | None = None) -> str:
    """Run a command and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return done.stdout


def convert(
    native: str, target: str, *options: str, environment: dict[str, str]
) -> tuple[dict[str, object], float, float]:
    """Convert; return the result, seconds, and the peak memory of the converter in MB."""
    command = [str(BIN / "sconify_image"), f"--from={native}", f"--to={target}", *OPTIONS, *options]
    with tempfile.TemporaryFile("w+") as out:
        begin = time.monotonic()
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begin
        if status != 0:
            sys.exit(f"{' '.join(command)} failed")
        out.seek(0)
        return json.load(out), seconds, usage.ru_maxrss / 1000


class Start(NamedTuple):
    """What it took from ``docker run`` to the first answer."""

    seconds: float
    cpu: float
    """Seconds of processor time of the container, its making not included."""


def start(image: str) -> Start:
    """Run a service until its first HTTPS answer."""
    begin = time.monotonic()
    name = quiet("docker", "run", "--detach", "--rm", image).strip()
    try:
        look = "{{.NetworkSettings.IPAddress}} {{.State.Pid}}"
        address, process = quiet("docker", "inspect", "--format", look, name).split()
        while time.monotonic() - begin < 60:
            if answers(address):
                return Start(time.monotonic() - begin, processor_time(int(process)))
            time.sleep(0.002)
        sys.exit(f"{image} does not answer")
    finally:
        quiet("docker", "rm", "--force", name)


def answers(address: str) -> bool:
    """Whether the service gives an HTTPS answer; asked in this process, since one for each attempt would take time."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, 4996), timeout=5) as connection,
            context.wrap_socket(connection) as service,
        ):
            service.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return service.recv(1) != b""
    except OSError:
        return False


def processor_time(process: int) -> float:
    """Return the seconds of processor time that the control group of a container's process has used."""
    for line in Path(f"/proc/{process}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            usage = Path(f"/sys/fs/cgroup/cpuacct{path}/cpuacct.usage").read_text(encoding="ascii")
            return int(usage) / 1e9
    usage = Path(f"/sys/fs/cgroup{path}/cpu.stat").read_text(encoding="ascii")
    return int(usage.split()[1]) / 1e6


def first_answer(image: str) -> float:
    """Seconds from ``docker run`` to the first HTTPS answer."""
    return start(image).seconds


def import_flask(image: str) -> float:
    """Seconds that the program itself sees for ``import flask``, interpreter start included."""
    return float(quiet("docker", "run", "--rm", image))


def alternate(measure: Callable[[str], T], images: Sequence[str], runs: int) -> dict[str, list[T]]:
    """Measure images in turn, so that the machine's moods hit all of them."""
    figures: dict[str, list[T]] = {image: [] for image in images}
    for image in images:
        measure(image)
    for _ in range(runs):
        for image in images:
            figures[image].append(measure(image))
    return figures


def show(name: str, native: list[float], ours: list[float], *, note: str = "") -> None:
    """Print medians, their ratio and the ranges, in milliseconds."""
    a, b = statistics.median(native) * 1000, statistics.median(ours) * 1000
    print(
        f"{name}: native {a:.0f} ms ({min(native) * 1000:.0f}..{max(native) * 1000:.0f}), "
        f"encrypted {b:.0f} ms ({min(ours) * 1000:.0f}..{max(ours) * 1000:.0f}), "
        f"ratio {b / a:.2f}, {b - a:+.0f} ms {note}"
    )


def image_that_imports_flask(base: str) -> str:
    """Make an image whose command prints how long ``import flask`` took since the process began."""
    code = (
        "import flask, time; ticks = int(open('/proc/self/stat').read().rsplit(')')[1].split()[19]); "
        "print(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / 100)"
    )
    image = "sconify-bench/import:native"
    with tempfile.TemporaryDirectory() as context:
        (Path(context) / "Dockerfile").write_text(f"FROM {base}\nCMD {json.dumps(['python3', '-c', code])}\n")
        quiet("docker", "build", "--quiet", "--tag", image, context)
    return image


def main() -> None:
    """Build, convert, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="runs of each measurement")
    runs = parser.parse_args().runs
    quiet(str(PROJECT / "examples/flask/build.sh"), NATIVE)
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "HOME": home}
        try:
            measure(runs, environment)
        finally:
            quiet(str(BIN / "sconify"), "embedded", "stop", environment=environment)


def measure(runs: int, environment: dict[str, str]) -> None:
    """Take and print all figures."""
    conversions = [convert(NATIVE, ENCRYPTED, *SERVICE, environment=environment) for _ in range(max(3, runs // 3))]
    result = conversions[-1][0]
    seconds = [each[1] for each in conversions]
    memory = max(each[2] for each in conversions)
    sizes = {name: float(str(result[name])) / 1e6 for name in ("native_size", "chosen_size", "size")}
    middle, low, high = statistics.median(seconds), min(seconds), max(seconds)
    print(f"conversion: {middle:.2f} s ({low:.2f}..{high:.2f}), {TARGETS['conversion']}")
    print(f"conversion, peak memory: {memory:.0f} MB, {TARGETS['conversion, peak memory']}")
    print(
        f"output size: native {sizes['native_size']:.1f} MB, chosen files {sizes['chosen_size']:.1f} MB, "
        f"encrypted image {sizes['size']:.1f} MB, {TARGETS['output size']}"
    )
    starts = alternate(first_answer, (NATIVE, ENCRYPTED), runs)
    show("start to first answer", starts[NATIVE], starts[ENCRYPTED], note=f"({TARGETS['start to first answer']})")
    native = image_that_imports_flask(NATIVE)
    encrypted = "sconify-bench/import:encrypted"
    tree = ("--dir=/usr/lib/python3", "--dir=/usr/lib/python3.11")
    convert(native, encrypted, *tree, environment=environment)
    imports = alternate(import_flask, (native, encrypted), runs)
    show("import flask", imports[native], imports[encrypted], note=f"({TARGETS['import flask']})")


if __name__ == "__main__":
    main()
