from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sconify.image import compressor as module
from sconify.image.compression import Compression, decompress, sha256
from sconify.image.compressor import compressor
from sconify.image.model import Extent


def pack(compression: Compression, pieces: list[bytes]) -> bytes:
    stream = compressor(compression)
    return b"".join([*(stream.compress(piece) for piece in pieces), stream.flush()])


@pytest.fixture(scope="module")
def data() -> bytes:
    source = random.Random(1)
    return b"".join(source.randbytes(3000) + b"text " * 800 for _ in range(900))  # 6 MB: several blocks


@given(st.lists(st.binary(max_size=3000), max_size=20))
def test_everything_comes_back(pieces: list[bytes]) -> None:
    plain = b"".join(pieces)
    assert gzip.decompress(pack(Compression.GZIP, pieces)) == plain
    assert zstandard.ZstdDecompressor().decompressobj().decompress(pack(Compression.ZSTD, pieces)) == plain
    assert pack(Compression.NONE, pieces) == plain


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_the_output_depends_on_the_input_alone(
    compression: Compression, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pack(compression, [data])
    monkeypatch.setattr(module, "_WORKERS", 1)
    assert pack(compression, [data]) == one
    monkeypatch.setattr(module, "_WORKERS", 3)
    assert pack(compression, [data[start : start + 777_777] for start in range(0, len(data), 777_777)]) == one
    assert len(one) < len(data)


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_our_reader_reads_it(compression: Compression, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "packed").write_bytes(pack(compression, [data]))
    (tmp_path / "plain").write_bytes(data)
    packed = Extent(tmp_path / "packed", 0, (tmp_path / "packed").stat().st_size)
    digests = decompress(packed, compression=compression, destination=tmp_path / "out", label="x")
    assert digests == (sha256(packed), sha256(Extent(tmp_path / "plain", 0, len(data))))
