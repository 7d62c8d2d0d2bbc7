"""Sparse files in tar archives: GNU's old format and its pax versions 0.0, 0.1 and 1.0 (GNU tar manual, D.2)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from sconify.image.model import Extent
from sconify.image.tar_header import BLOCK, TarError, parse_number, parse_pax_number

_MAX_SIZE = 1 << 40  # a hole costs no disk but must be read: 1 TiB is beyond any file that an image needs
_MAX_PIECES = 1 << 16
_MAX_MAP = 40 * _MAX_PIECES  # bytes: two numbers of at most 18 digits for each piece
_COPY = 1 << 20


@dataclass(frozen=True, slots=True)
class SparseMap:
    """Where the pieces of a sparse file go."""

    size: int
    """Of the whole file, holes included."""
    pieces: tuple[tuple[int, int], ...]
    """Offset in the file and length of each piece, in the order in which the archive has them."""

    def verify(self, stored: int) -> None:
        """Check the map against the number of bytes that the archive has for it.

        Raises:
            TarError: Pieces overlap, go backwards, leave the file, or are not the stored bytes; or the file is absurd.
        """
        position = 0
        for offset, length in self.pieces:
            if offset < position or length < 0:
                raise TarError("the pieces of a sparse file overlap")
            position = offset + length
        if position > self.size or not 0 <= self.size <= _MAX_SIZE:
            raise TarError(f"a sparse file has {self.size} bytes, expected {position}..{_MAX_SIZE}")
        total = sum(length for _, length in self.pieces)
        if total != stored:
            raise TarError(f"the pieces of a sparse file have {total} bytes, the archive has {stored}")


def old_gnu_map(header: bytes, next_block: Callable[[], bytes]) -> SparseMap:
    """Read the map of a type ``S`` member: four pieces in the header, 21 in each block that follows.

    Raises:
        TarError: It breaks the format.
    """
    pieces = _old_pieces(header[386:482])
    more = header[482]
    while more:
        block = next_block()
        pieces += _old_pieces(block[:504])
        more = block[504]
        if len(pieces) > _MAX_PIECES:
            raise TarError(f"a sparse file has more than {_MAX_PIECES} pieces")
    return SparseMap(parse_number(header[483:495]), tuple(pieces))


def _old_pieces(table: bytes) -> list[tuple[int, int]]:
    pieces = []
    for start in range(0, len(table), 24):
        if not table[start]:
            break
        pieces.append((parse_number(table[start : start + 12]), parse_number(table[start + 12 : start + 24])))
    return pieces


def pax_map(records: list[tuple[str, bytes]], next_block: Callable[[], bytes]) -> SparseMap | None:
    """Read the map of a member whose pax records describe a sparse file.

    Args:
        records: Of the member's pax header.
        next_block: Takes one block off the front of the content, where version 1.0 keeps the map.

    Returns:
        The map, or None if the member is not sparse.

    Raises:
        TarError: It breaks the format.
    """
    last = dict(records)
    if "GNU.sparse.major" in last:
        version = (last["GNU.sparse.major"], last.get("GNU.sparse.minor"))
        if version != (b"1", b"0"):
            raise TarError(f"a sparse file has the version {version}, expected 1.0")
        key = "GNU.sparse.realsize"
        numbers = _leading_numbers(next_block)
    elif "GNU.sparse.map" in last:
        key = "GNU.sparse.size"
        text = last["GNU.sparse.map"]
        numbers = [parse_pax_number(number, key="GNU.sparse.map") for number in text.split(b",")] if text else []
    elif "GNU.sparse.size" in last:
        key = "GNU.sparse.size"
        numbers = [
            parse_pax_number(value, key=name)
            for name, value in records
            if name in {"GNU.sparse.offset", "GNU.sparse.numbytes"}
        ]
    else:
        return None
    if len(numbers) % 2 or len(numbers) > 2 * _MAX_PIECES:
        raise TarError(f"a sparse map has {len(numbers)} numbers, expected pairs, at most {_MAX_PIECES}")
    size = parse_pax_number(last.get(key, b""), key=key)
    return SparseMap(size, tuple(zip(numbers[::2], numbers[1::2], strict=True)))


def _leading_numbers(next_block: Callable[[], bytes]) -> list[int]:
    """Read the count of pieces and then their numbers, one a line, padded with NUL to whole blocks."""
    text = bytearray(next_block())
    while (first := text.find(b"\n")) < 0:
        if len(text) > BLOCK:
            raise TarError("a sparse map does not start with its count")
        text += next_block()
    count = parse_pax_number(bytes(text[:first]), key="sparse map")
    if count > _MAX_PIECES:
        raise TarError(f"a sparse file has {count} pieces, at most {_MAX_PIECES} are allowed")
    missing = 1 + 2 * count - text.count(b"\n")
    while missing > 0:
        block = next_block()
        missing -= block.count(b"\n")
        text += block
        if len(text) > _MAX_MAP:
            raise TarError("a sparse map is longer than its numbers need")
    return [parse_pax_number(line, key="sparse map") for line in bytes(text).split(b"\n")[1 : 1 + 2 * count]]


def materialise(pieces: Extent, layout: SparseMap, descriptor: int) -> int:
    """Append a sparse file, holes and all, to an open file.

    Args:
        pieces: The stored bytes.
        layout: Verified against them.
        descriptor: Open for writing.

    Returns:
        The offset at which the file starts.

    Raises:
        OSError: Reading or writing failed.
    """
    start = os.lseek(descriptor, 0, os.SEEK_END)
    source = os.open(pieces.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = pieces.offset
        for offset, length in layout.pieces:
            copied = 0
            while copied < length:
                data = os.pread(source, min(_COPY, length - copied), position + copied)
                if not data:
                    raise OSError("a layer became shorter while it was read")
                os.pwrite(descriptor, data, start + offset + copied)
                copied += len(data)
            position += length
        os.ftruncate(descriptor, start + layout.size)
    finally:
        os.close(source)
    return start
