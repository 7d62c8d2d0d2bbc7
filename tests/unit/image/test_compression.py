"""Decompression, whoever does the steps after it."""

from __future__ import annotations

import gzip
import hashlib
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import zstandard

from sconify.errors import UntrustedDataError, UserError
from sconify.image.compression import Compression, decompress
from sconify.image.model import Extent

ALWAYS = lambda: True  # noqa: E731
NEVER = lambda: False  # noqa: E731


def alternating() -> Callable[[], bool]:
    """Change one's mind at each third piece: then some are still on their way."""
    answers = random.Random(1)
    return lambda: answers.random() < 0.7


@pytest.fixture(scope="module")
def plain() -> bytes:
    noise = random.Random(2)
    return b"".join(noise.randbytes(1 << 20) + bytes(noise.choices(b"abcdef", k=1 << 20)) for _ in range(4)) + b"end"


def stored(tmp_path: Path, data: bytes) -> Extent:
    (tmp_path / "packed").write_bytes(b"before" + data + b"after")
    return Extent(tmp_path / "packed", 6, len(data))


def members(data: bytes) -> bytes:
    """Compress as several members, one of them empty."""
    cuts = [0, 1, 700_001, 700_001, 3 << 20, len(data)]
    return b"".join(gzip.compress(data[start:stop], 1) for start, stop in pairwise(cuts))


@pytest.mark.parametrize("spare", [ALWAYS, NEVER, alternating()])
@pytest.mark.parametrize(
    ("compression", "pack"),
    [
        (Compression.GZIP, lambda data: gzip.compress(data, 1)),
        (Compression.GZIP, members),
        (Compression.ZSTD, zstandard.ZstdCompressor().compress),
    ],
)
def test_the_result_does_not_depend_on_who_is_idle(
    compression: Compression,
    pack: Callable[[bytes], bytes],
    spare: Callable[[], bool],
    plain: bytes,
    tmp_path: Path,
) -> None:
    packed = pack(plain)
    sizes: list[int] = []
    digests = decompress(
        stored(tmp_path, packed), compression=compression, destination=tmp_path / "out", label="x",
        count=sizes.append, spare=spare,
    )  # fmt: skip
    assert (tmp_path / "out").read_bytes() == plain
    assert digests == tuple(f"sha256:{hashlib.sha256(data).hexdigest()}" for data in (packed, plain))
    assert sum(sizes) == len(plain)
    assert max(sizes) <= 256 << 10


@pytest.mark.parametrize("spare", [ALWAYS, NEVER])
def test_a_bomb_is_stopped_before_it_is_written(spare: Callable[[], bool], tmp_path: Path) -> None:
    left = [1 << 20]

    def count(size: int) -> None:
        left[0] -= size
        if left[0] < 0:
            raise UserError("too much")

    bomb = gzip.compress(bytes(64 << 20))
    with pytest.raises(UserError, match="too much"):
        decompress(
            stored(tmp_path, bomb), compression=Compression.GZIP, destination=tmp_path / "out", label="x",
            count=count, spare=spare,
        )  # fmt: skip
    assert (tmp_path / "out").stat().st_size <= 1 << 20


@pytest.mark.parametrize("spare", [ALWAYS, NEVER])
def test_malformed_data_is_refused(spare: Callable[[], bool], plain: bytes, tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(plain, 1))
    packed[len(packed) // 2] ^= 1
    with pytest.raises(UntrustedDataError, match="layer x is not valid gzip data"):
        decompress(
            stored(tmp_path, bytes(packed)), compression=Compression.GZIP, destination=tmp_path / "out",
            label="layer x", spare=spare,
        )  # fmt: skip


@pytest.mark.parametrize("missing", [1, 8, 9, 100_000])
def test_a_gzip_stream_that_ends_early_is_refused(missing: int, plain: bytes, tmp_path: Path) -> None:
    with pytest.raises(UntrustedDataError, match="layer x is not valid gzip data"):
        decompress(
            stored(tmp_path, gzip.compress(plain)[:-missing]), compression=Compression.GZIP,
            destination=tmp_path / "out", label="layer x",
        )  # fmt: skip


def test_the_digest_is_that_of_all_bytes_whatever_follows_the_stream(plain: bytes, tmp_path: Path) -> None:
    packed = gzip.compress(plain) + bytes(3 << 20)
    digest, _ = decompress(
        stored(tmp_path, packed), compression=Compression.GZIP, destination=tmp_path / "out", label="x"
    )
    assert digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert (tmp_path / "out").read_bytes() == plain


@pytest.mark.parametrize("garbage", [b"x", b"\x1f\x8b", b"\x1f\x8b\x08\0"])
def test_garbage_after_a_stream_is_refused(garbage: bytes, plain: bytes, tmp_path: Path) -> None:
    with pytest.raises(UntrustedDataError, match="layer x is not valid gzip data"):
        decompress(
            stored(tmp_path, gzip.compress(plain) + garbage), compression=Compression.GZIP,
            destination=tmp_path / "out", label="layer x",
        )  # fmt: skip
