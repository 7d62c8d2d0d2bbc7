"""The host changes the one file of an image with an embedded file system: each change is refused."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sconify.program.measure import MeasuredBinary, measure_binary
from tests.containers import Convert, run

pytestmark = pytest.mark.docker

IMAGE = "sconify-test/flask:embedded-hostile"
PROGRAM = "/usr/bin/python3.11"
TIMED_OUT = 124
SAMPLES = int(os.environ.get("SCONIFY_FLIPS", "6"))
"""Bytes that are flipped in each part of the binary."""


@pytest.fixture(scope="module")
def binary(flask_native: str, convert: Convert, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sconified binary, whose program does nothing but read all that is embedded."""
    read_all = (
        "import os; [open(os.path.join(d, f), 'rb').read() for d, _, fs in os.walk('/') "
        "if not d.startswith(('/proc', '/sys', '/dev')) for f in fs]; print('unharmed')"
    )
    convert(
        f"--from={flask_native}", f"--to={IMAGE}", "--binary=/usr/bin/python3", "--binary-fs", "--fs-dir=/app",
        "--fs-dir=/tls", "--overwrite", f'--command=python3 -c "{read_all}"',
    )  # fmt: skip
    file = tmp_path_factory.mktemp("binary") / "binary"
    container = run("docker", "create", IMAGE).stdout.strip()
    run("docker", "cp", f"{container}:{PROGRAM}", str(file))
    run("docker", "rm", container)
    return file


@pytest.fixture(scope="module")
def measured(binary: Path) -> MeasuredBinary:
    with binary.open("rb") as file:
        return measure_binary(file, environment={})


@pytest.fixture
def start(binary: Path, tmp_path: Path) -> Callable[[bytes], subprocess.CompletedProcess[str]]:
    """Run the image with other content in place of its binary, as a host that changes the storage does."""

    def run_with(content: bytes) -> subprocess.CompletedProcess[str]:
        changed = tmp_path / "changed"
        changed.write_bytes(content)
        changed.chmod(0o755)
        command = ["timeout", "60", "docker", "run", "--rm", f"--volume={changed}:{PROGRAM}:ro", IMAGE]
        return run(*command, check=False, timeout=90)

    return run_with


def flipped(content: bytes, at: int) -> bytes:
    changed = bytearray(content)
    changed[at] ^= 1
    return bytes(changed)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode not in (0, TIMED_OUT), f"not refused:\n{done.stdout}\n{done.stderr}"
    assert "unharmed" not in done.stdout
    return done.stderr


def test_the_unchanged_binary_runs(binary: Path, start: Callable[[bytes], subprocess.CompletedProcess[str]]) -> None:
    done = start(binary.read_bytes())
    assert (done.returncode, done.stdout) == (0, "unharmed\n"), done.stderr


def test_a_flipped_byte_of_the_packs_is_named(
    binary: Path, measured: MeasuredBinary, start: Callable[[bytes], subprocess.CompletedProcess[str]]
) -> None:
    content = binary.read_bytes()
    rng = random.Random(6)
    places = [measured.packs.start, measured.packs.stop - 1, *rng.sample(measured.packs, SAMPLES)]
    for at in places:
        said = refused(start(flipped(content, at)))
        assert f"{PROGRAM}/.sconify.packs/" in said, said


def test_a_flipped_byte_before_the_packs_is_another_measurement(
    binary: Path, measured: MeasuredBinary, start: Callable[[bytes], subprocess.CompletedProcess[str]]
) -> None:
    content = binary.read_bytes()
    manifest = content.index(measured.manifest.canonical_json())
    index = content.index(measured.index, manifest)
    digests = index + len(measured.index)
    tables = digests + 32 * len(measured.digests)
    rng = random.Random(7)
    parts = [range(manifest), range(manifest, index), range(index, digests), range(digests, tables)]
    parts.append(range(tables, measured.packs.start))
    for part in parts:
        for at in rng.sample(part, max(1, SAMPLES // 3)):
            refused(start(flipped(content, at)))


@pytest.mark.parametrize("change", ["truncated", "longer", "swapped chunks"])
def test_a_changed_end_is_refused(
    change: str, binary: Path, measured: MeasuredBinary,
    start: Callable[[bytes], subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    content = binary.read_bytes()
    middle = (measured.packs.start + measured.packs.stop) // 2
    changed = {
        "truncated": content[:-1],
        "longer": content + b"\0",
        "swapped chunks": content[:middle] + content[middle + 4096 : middle + 8192] + content[middle : middle + 4096]
        + content[middle + 8192 :],
    }[change]  # fmt: skip
    refused(start(changed))


def test_packs_of_another_conversion_are_refused(
    binary: Path, measured: MeasuredBinary, flask_native: str, convert: Convert, tmp_path: Path,
    start: Callable[[bytes], subprocess.CompletedProcess[str]],
) -> None:  # fmt: skip
    """The same files under another key: whole, valid packs of the same length."""
    other: dict[str, Any] = convert(
        f"--from={flask_native}", f"--to={IMAGE}-other", "--binary=/usr/bin/python3", "--binary-fs", "--fs-dir=/app",
        "--fs-dir=/tls", "--overwrite",
    )  # fmt: skip
    assert other["measurement"] != measured.measurement
    container = run("docker", "create", f"{IMAGE}-other").stdout.strip()
    run("docker", "cp", f"{container}:{PROGRAM}", str(tmp_path / "other"))
    run("docker", "rm", container)
    packs = (tmp_path / "other").read_bytes()[-len(measured.packs) :]
    assert len(packs) == len(measured.packs)
    refused(start(binary.read_bytes()[: measured.packs.start] + packs))
