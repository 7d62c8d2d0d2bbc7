from __future__ import annotations

from pathlib import Path

import pytest

from sconify.image.layer_in_place import LAYER_GAP, layer_in_place
from sconify.image.layer_writer import LayerWriter
from sconify.image.model import Entry, EntryType, Extent

DIRECTORY = Entry(path="/.sconify", type=EntryType.DIRECTORY, mode=0o755, mtime=7)


def entry(path: Path, size: int, *, gap: int = LAYER_GAP, name: str = "/.sconify/pack0") -> Entry:
    return Entry(path=name, type=EntryType.FILE, mode=0o444, mtime=7, content=Extent(path, gap, size))


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 3_000_000])
def test_the_bytes_are_those_of_a_layer_that_is_written(tmp_path: Path, size: int) -> None:
    content = bytes(number % 251 for number in range(size))
    file = tmp_path / "pack"
    file.write_bytes(bytes(LAYER_GAP) + content)
    writer = LayerWriter(tmp_path / "written", epoch=7)
    writer.add(DIRECTORY)
    writer.add(entry(file, size))
    expected = writer.finish()
    made = layer_in_place(DIRECTORY, entry(file, size))
    assert made is not None
    assert made.digest == expected.digest == made.diff_id
    assert file.read_bytes() == (tmp_path / "written").read_bytes()
    assert made.blob == Extent(file, 0, file.stat().st_size)


@pytest.mark.parametrize("changes", [{"gap": 512}, {"gap": 0}, {"name": "/.sconify/" + "x" * 120}])
def test_what_does_not_fit_is_left_alone(tmp_path: Path, changes: dict[str, object]) -> None:
    file = tmp_path / "pack"
    file.write_bytes(bytes(4096))
    assert layer_in_place(DIRECTORY, entry(file, 3072, **changes)) is None  # type: ignore[arg-type]
    assert file.read_bytes() == bytes(4096)


def test_a_file_that_is_too_large_for_a_plain_header(tmp_path: Path) -> None:
    file = tmp_path / "pack"
    with file.open("wb") as stream:
        stream.truncate(LAYER_GAP + (9 << 30))
    assert layer_in_place(DIRECTORY, entry(file, 9 << 30)) is None
