"""A layer that is made around its content is the one that is written by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sconify.image.compression import iterate
from sconify.image.layer_around import layer_around, room_around
from sconify.image.layer_writer import LayerWriter
from sconify.image.model import Extent

MUCH = 1 << 20
ROOM = room_around("/.sconify/pack0", size=1)


@pytest.mark.parametrize("size", [0, 1, 512, 5000, 3 << 20])
@pytest.mark.parametrize("path", ["/program", "/usr/local/bin/program", "/" + "long/" * 40 + "program"])
def test_it_is_the_layer_that_a_writer_makes(path: str, size: int, tmp_path: Path) -> None:
    head, content = os.urandom(10_000), os.urandom(size)
    (tmp_path / "whole").write_bytes(head + content)
    writer = LayerWriter(tmp_path / "written", epoch=7)
    writer.add_file(path, tmp_path / "whole", mode=0o755)
    expected = writer.finish()
    with (tmp_path / "around").open("wb") as file:
        file.seek(MUCH)
        file.write(content)
    made = layer_around(Extent(tmp_path / "around", MUCH, size), path=path, mode=0o755, epoch=7, head=head)
    assert made is not None
    assert (made.digest, made.diff_id, made.size) == (expected.digest, expected.diff_id, expected.size)
    assert b"".join(iterate(made.blob)) == (tmp_path / "written").read_bytes()


@pytest.mark.parametrize("size", [0, 511, 3_000_000])
@pytest.mark.parametrize("path", ["/.sconify/pack0", "/usr/local/bin/program", "/" + "long/" * 40 + "program"])
def test_with_room_for_the_headers_alone_the_layer_is_the_whole_file(path: str, size: int, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    room = room_around(path, size=size)
    pack.write_bytes(bytes(room) + os.urandom(size))
    made = layer_around(Extent(pack, room, size), path=path, mode=0o444, epoch=7)
    assert made is not None
    assert made.blob == Extent(pack, 0, pack.stat().st_size)


@pytest.mark.parametrize(
    ("room", "path"), [(ROOM - 512, "/.sconify/pack0"), (0, "/.sconify/pack0"), (ROOM, "/.sconify/" + "x" * 120)]
)
def test_with_too_little_room_nothing_is_made_or_changed(room: int, path: str, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    pack.write_bytes(bytes(4096))
    assert layer_around(Extent(pack, room, 3072), path=path, mode=0o444, epoch=0) is None
    assert pack.read_bytes() == bytes(4096)


def test_a_file_that_is_too_large_for_a_plain_header(tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    with pack.open("wb") as stream:
        stream.truncate(ROOM + (9 << 30))
    assert layer_around(Extent(pack, ROOM, 9 << 30), path="/.sconify/pack0", mode=0o444, epoch=0) is None
    assert room_around("/.sconify/pack0", size=9 << 30) > ROOM
