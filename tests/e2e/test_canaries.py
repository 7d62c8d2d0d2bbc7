"""No protected byte stands in the output image, in the state directory or in a log."""

from __future__ import annotations

import gzip
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from tests.containers import ENCRYPTED, FLASK_OPTIONS, Canaries, Convert, run

pytestmark = pytest.mark.docker


def decompressed(blob: bytes) -> bytes:
    """Return a blob as it is, and decompressed if it is compressed."""
    if blob.startswith(b"\x1f\x8b"):
        return gzip.decompress(blob)
    if blob.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().stream_reader(blob).read()
    return blob


def files_below(directory: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(directory.rglob("*")):
        if file.is_file() and not file.is_symlink():
            yield str(file), decompressed(file.read_bytes())


def blobs_of(image: str, directory: Path) -> list[tuple[str, bytes]]:
    """Return every blob of an image: layers, configuration with its history, manifest."""
    run("skopeo", "copy", "--quiet", f"docker-daemon:{image}", f"oci:{directory}:image")
    return list(files_below(directory))


def found(canaries: Canaries, places: Iterable[tuple[str, bytes]]) -> set[str]:
    """Return the canaries that stand in any of the places."""
    everything = list(places)
    assert everything
    return {
        canary
        for canary in canaries.all()
        for _, content in everything
        if canary.encode() in content or canary.encode().hex().encode() in content
    }


def test_the_search_finds_what_is_not_encrypted(
    flask_native: str, canaries: Canaries, convert: Convert, tmp_path: Path
) -> None:
    """The native image has every canary, and an image with plain directories has those of the files."""
    assert found(canaries, blobs_of(flask_native, tmp_path / "native")) == set(canaries.all())
    target = "sconify-test/flask:plain"
    convert(
        f"--from={flask_native}", f"--to={target}", "--binary=python3", "--plain=/app", "--plain=/tls", "--overwrite"
    )
    assert found(canaries, blobs_of(target, tmp_path / "plain")) == {canaries.app, canaries.tls}


def test_no_canary_is_in_the_image(flask_encrypted: dict[str, Any], canaries: Canaries, tmp_path: Path) -> None:
    assert not found(canaries, blobs_of(ENCRYPTED, tmp_path / "image"))


def test_no_canary_is_in_the_state_or_in_a_log(
    flask_encrypted: dict[str, Any], canaries: Canaries, home: dict[str, str], start: Any
) -> None:
    """Everything below the home: the embedded services' state and logs, the client's records; and what was printed."""
    container = start(ENCRYPTED)
    assert container.answer()["greeting"] == canaries.environment
    state = list(files_below(Path(home["HOME"])))
    assert any("sconify" in name for name, _ in state)
    printed = [("converter", flask_encrypted["stderr"].encode())]
    assert not found(canaries, [*state, *printed, ("container", container.logs().encode())])


def test_no_canary_is_in_arguments_of_processes(flask_native: str, canaries: Canaries, home: dict[str, str]) -> None:
    """While a conversion runs, no process of the machine shows a canary in its arguments or environment."""
    command = ["sconify_image", f"--from={flask_native}", "--to=sconify-test/flask:watched", *FLASK_OPTIONS]
    conversion = subprocess.Popen(command, env=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seen: set[str] = set()
    while conversion.poll() is None:
        for process in Path("/proc").glob("[0-9]*"):
            for name in ("cmdline", "environ"):
                try:
                    content = (process / name).read_bytes()
                except OSError:
                    continue
                seen |= {canary for canary in canaries.all() if canary.encode() in content}
    assert conversion.returncode == 0
    assert not seen
