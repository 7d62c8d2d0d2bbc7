"""A layer that is made around its content is the one that is written by itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sconify.errors import BugError
from sconify.image.compression import iterate
from sconify.image.layer_around import layer_around
from sconify.image.layer_writer import LayerWriter
from sconify.image.model import Extent

ROOM = 1 << 20


@pytest.mark.parametrize("size", [0, 1, 512, 5000, 3 << 20])
@pytest.mark.parametrize("path", ["/program", "/usr/local/bin/program", "/" + "long/" * 40 + "program"])
def test_it_is_the_layer_that_a_writer_makes(path: str, size: int, tmp_path: Path) -> None:
    head, content = os.urandom(10_000), os.urandom(size)
    (tmp_path / "whole").write_bytes(head + content)
    writer = LayerWriter(tmp_path / "written", epoch=7)
    writer.add_file(path, tmp_path / "whole", mode=0o755)
    expected = writer.finish()
    with (tmp_path / "around").open("wb") as file:
        file.seek(ROOM)
        file.write(content)
    made = layer_around(Extent(tmp_path / "around", ROOM, size), path=path, mode=0o755, epoch=7, head=head)
    assert (made.digest, made.diff_id, made.size) == (expected.digest, expected.diff_id, expected.size)
    assert b"".join(iterate(made.blob)) == (tmp_path / "written").read_bytes()


def test_too_little_room_is_no_layer(tmp_path: Path) -> None:
    (tmp_path / "around").write_bytes(bytes(1000))
    with pytest.raises(BugError, match="room"):
        layer_around(Extent(tmp_path / "around", 500, 500), path="/program", mode=0o755, epoch=0, head=bytes(1))
    assert (tmp_path / "around").read_bytes() == bytes(1000)
