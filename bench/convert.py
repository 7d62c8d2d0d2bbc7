"""Measures conversions of a big image beside the closest public tools, in one run, and prints ratios.

``python -m bench.convert`` makes an image of ``--size`` bytes, half of it compressible, and lets each tool read it from
and write it to this disk:

- ``sconify_image`` from an OCI layout to one, its directories encrypted;
- ``skopeo copy --encryption-key jwe:``, which encrypts whole layers (OCI image encryption) and nothing else;
- ``docker build`` that copies the same files, unprotected, out of the image into an empty one.

Then one file of the application changes: how long the next conversion takes, and how many bytes it made that the first
one did not, which is what a push to a registry sends.

Other work on the machine hits the times, but hardly the CPU seconds: both are printed. CPU seconds of ``docker build``
are the engine's and not known here.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.flask import BIN, quiet
from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.layer_writer import LayerWriter
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image
from sconify.image.source import open_image

TARGETS = "at least 300 MB/s and at most 256 MB of memory; after a change of one file at most 5 MB pushed"
DIRECTORIES = ("/srv/models", "/srv/static", "/opt/packages")
APPLICATION = "/app"
APPLICATION_FILES = 64
PROGRAM = "int main(void) { return 0; }\n"
FILE_SIZE = 4 << 20
"""Bytes of a file. Small: the memory of this process counts as that of the tools until they are executed."""


@dataclass(frozen=True)
class Figures:
    """What one run of a tool took: seconds, CPU seconds of it and its children, peak memory of one process in MB."""

    seconds: float
    cpu: float
    memory: float


def timed(command: Sequence[str], environment: dict[str, str] | None = None) -> Figures:
    """Run a command, when the disk has what others wrote before."""
    os.sync()
    with tempfile.TemporaryFile("w+") as log:
        begin = time.monotonic()
        child = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.monotonic() - begin
        if status != 0:
            log.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{log.read()}")
    return Figures(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000)


def native_image(work: Path, size: int, compression: Compression) -> str:
    """Make an OCI layout with a static program and directories of files, half noise and half text."""
    (work / "main.c").write_text(PROGRAM)
    quiet("cc", "-static", "-o", f"{work}/server", f"{work}/main.c")
    data = work / "data"
    data.mkdir(exist_ok=True)
    noise = random.Random(1)
    words = [noise.randbytes(7) for _ in range(4096)]
    text = b" ".join(noise.choices(words, k=FILE_SIZE >> 4))
    layers: list[Layer] = []
    for directory in DIRECTORIES:
        writer = LayerWriter(work / f"native{len(layers)}.tar", compression=compression, epoch=0)
        writer.add_file("/server", work / "server", mode=0o755)
        for number in range(APPLICATION_FILES):
            writer.add_bytes(f"{APPLICATION}/{number:04}", text[number << 10 : (number << 10) + (32 << 10)])
        for number in range(size // FILE_SIZE // len(DIRECTORIES)):
            file = data / f"{len(layers)}-{number}"
            cut = noise.randrange(len(text))
            file.write_bytes(noise.randbytes(FILE_SIZE >> 1) + text[cut:] + text[:cut])
            writer.add_file(f"{directory}/{number:04}", file)
        layers.append(writer.finish())
    name = f"oci:{work}/native-{compression.name.lower()}:x"
    config = ImageConfig(entrypoint=("/server",))
    reference = ImageReference.parse(name)
    write_image(reference, config=config, layers=layers, workdir=work, overwrite=False).commit()
    for layer in layers:
        layer.blob.source.unlink()
    shutil.rmtree(data)
    return name


def with_one_change(native: str, work: Path) -> str:
    """Make an OCI layout of the same image with one more layer, which changes a file of the application."""
    writer = LayerWriter(work / "change.tar", compression=Compression.GZIP, epoch=0)
    writer.add_bytes(f"{APPLICATION}/0007", b"changed")
    name = f"{native.removesuffix(':x')}-changed:x"
    with open_image(ImageReference.parse(native), workdir=work) as image:
        layers = (*image.layers, writer.finish())
        write_image(
            ImageReference.parse(name), config=image.config, layers=layers, workdir=work, overwrite=False
        ).commit()
    return name


def change(native: str, work: Path, environment: dict[str, str]) -> None:
    """Convert, change a file, convert again, and print what was made anew."""
    key = work / "key"
    key.touch(mode=0o600)
    key.write_text("ab" * 32)
    changed = with_one_change(native, work)
    blobs = work / "kept/blobs/sha256"

    def stored() -> dict[str, int]:
        return {blob.name: blob.stat().st_size for blob in blobs.iterdir()}

    timed(sconify(native, f"oci:{work}/kept:x", f"--key-file={key}"), environment)
    before = stored()
    figures = timed(sconify(changed, f"oci:{work}/kept:x", f"--key-file={key}"), environment)
    pushed = sum(size for blob, size in stored().items() if blob not in before)
    print(
        f"after a change of one file: {figures.seconds:.1f} s, {pushed / 1e6:.2f} MB to push "
        f"of {sum(before.values()) / 1e6:.0f} MB"
    )
    for made in ("kept", f"{Path(changed.removesuffix(':x')).name}"):
        shutil.rmtree(work / made)


def sconify(native: str, target: str, *options: str) -> list[str]:
    """Return the command that converts."""
    protect = [f"--dir={directory}" for directory in (*DIRECTORIES, APPLICATION)]
    return [str(BIN / "sconify_image"), f"--from={native}", f"--to={target}", "--binary=/server", "--overwrite",
            "--json", *protect, *options]  # fmt: skip


def compare(native: str, size: int, work: Path, runs: int, environment: dict[str, str]) -> None:
    """Let the tools take turns, and print medians and ratios."""
    quiet("openssl", "genrsa", "-out", f"{work}/key.pem", "3072")
    quiet("openssl", "rsa", "-in", f"{work}/key.pem", "-pubout", "-out", f"{work}/public.pem")
    encrypted = f"oci:{work}/skopeo:x"
    tools: dict[str, Callable[[], Figures]] = {
        "sconify_image": lambda: timed(sconify(native, f"oci:{work}/sconified:x"), environment),
        "skopeo, layers encrypted": lambda: timed(
            ["skopeo", "copy", "--quiet", "--encryption-key", f"jwe:{work}/public.pem", native, encrypted]
        ),
    }
    if shutil.which("docker") is not None:
        tools["docker build, no protection"] = _docker_build(native, work)
    figures: dict[str, list[Figures]] = {name: [] for name in tools}
    for _ in range(runs):
        for name, tool in tools.items():
            figures[name].append(tool())
            for made in ("sconified", "skopeo"):
                shutil.rmtree(work / made, ignore_errors=True)
    ours = statistics.median(one.seconds for one in figures["sconify_image"])
    for name, taken in figures.items():
        seconds = statistics.median(one.seconds for one in taken)
        cpu = statistics.median(one.cpu for one in taken)
        memory = max(one.memory for one in taken)
        low, high = min(one.seconds for one in taken), max(one.seconds for one in taken)
        shown = "" if name.startswith("docker") else f", {cpu:.1f} s of CPU, {memory:.0f} MB of memory"
        print(
            f"{name}: {seconds:.1f} s ({low:.1f}..{high:.1f}), "
            f"{size / 1e6 / seconds:.0f} MB/s{shown}; sconify_image takes {ours / seconds:.2f} times as long"
        )


def _docker_build(native: str, work: Path) -> Callable[[], Figures]:
    image = "sconify-bench/big:native"
    quiet("skopeo", "copy", "--quiet", native, f"docker-archive:{work}/native.tar:{image}")
    quiet("docker", "load", "--quiet", "--input", f"{work}/native.tar")
    (work / "native.tar").unlink()
    (work / "context").mkdir()
    copies = "".join(f"COPY --from=native {path} {path}\n" for path in ("/server", *DIRECTORIES))
    (work / "context/Dockerfile").write_text(f"FROM {image} AS native\nFROM scratch\n{copies}")

    def build() -> Figures:
        figures = timed(["docker", "build", "--quiet", "--no-cache", "--tag", f"{image}-copied", f"{work}/context"])
        # The next one takes the name away, but not the image.
        quiet("docker", "image", "rm", f"{image}-copied")
        return figures

    return build


def steps(native: str, work: Path, environment: dict[str, str]) -> None:
    """Print how long each step of a conversion takes."""
    made = json.loads(quiet(*sconify(native, f"oci:{work}/sconified:x"), environment=environment))
    shutil.rmtree(work / "sconified")
    print("steps: " + ", ".join(f"{step['name']} {step['seconds']:.2f} s" for step in made["steps"]))


def main() -> None:
    """Make images, convert, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2 << 30, help="bytes of the image")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool")
    options = parser.parse_args()
    print(f"targets: {TARGETS}")
    with tempfile.TemporaryDirectory() as home:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("XDG_")}
        environment["HOME"] = home
        try:
            for compression in (Compression.NONE, Compression.GZIP):
                with tempfile.TemporaryDirectory() as directory:
                    work = Path(directory)
                    native = native_image(work, options.size, compression)
                    print(f"{options.size / 1e6:.0f} MB in layers with compression {compression.name.lower()}")
                    steps(native, work, environment)
                    compare(native, options.size, work, options.runs, environment)
                    change(native, work, environment)
        finally:
            subprocess.run([str(BIN / "sconify"), "embedded", "stop"], check=False, env=environment)
            subprocess.run(["docker", "rmi", "--force", "sconify-bench/big:native"], check=False, capture_output=True)


if __name__ == "__main__":
    main()
