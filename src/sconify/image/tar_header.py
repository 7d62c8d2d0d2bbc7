"""The bytes of a tar archive's headers: POSIX ustar and pax (IEEE Std 1003.1, pax), and GNU's extensions. No I/O.

Where the formats leave room, this follows Go's ``archive/tar``, because that is what Docker, containerd, podman and
skopeo read layers with.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

BLOCK = 512
_FIELDS = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_ZERO = bytes(BLOCK)
_CHECKSUM = slice(148, 156)
_INT64 = 1 << 63
_PAX_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]*))?")


class TarError(ValueError):
    """A header that breaks the format. The message has neither the archive's name nor the position."""


class Header(NamedTuple):
    """One 512-byte header, its numbers read. Names are the raw bytes, without the terminating NUL."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    """The type flag, one byte; the ancient NUL is shown as ``b"0"`` or, for a name that ends in a slash, ``b"5"``."""
    target: bytes
    major: int
    minor: int


def parse_header(block: bytes) -> Header | None:
    """Read one header block.

    Args:
        block: 512 bytes.

    Returns:
        The header, or None for the block of zeros that ends an archive.

    Raises:
        TarError: The block is short, its checksum is wrong, or a number is malformed or out of range.
    """
    if len(block) != BLOCK:
        raise TarError(f"a header of {BLOCK} bytes was expected, the archive ends after {len(block)}")
    if block == _ZERO:
        return None
    (name, mode, uid, gid, size, mtime, checksum, kind, target, magic, _, _, major, minor, prefix) = _FIELDS.unpack(
        block
    )
    _verify_checksum(block, parse_number(checksum))
    name = _until_nul(name)
    if magic == b"ustar\x0000" and prefix[0]:
        name = _until_nul(prefix) + b"/" + name
    has_device = kind in {b"3", b"4"} and magic.startswith(b"ustar")
    if kind == b"\0":
        kind = b"5" if name.endswith(b"/") else b"0"
    return Header(
        name,
        parse_number(mode),
        parse_number(uid),
        parse_number(gid),
        parse_number(size),
        parse_number(mtime),
        kind,
        _until_nul(target),
        parse_number(major) if has_device else 0,
        parse_number(minor) if has_device else 0,
    )


def _verify_checksum(block: bytes, expected: int) -> None:
    spaces = 8 * 0x20  # the checksum field itself counts as spaces
    rest = block[: _CHECKSUM.start] + block[_CHECKSUM.stop :]
    unsigned = sum(rest) + spaces
    if unsigned == expected:
        return
    # Some old writers summed signed chars.
    signed = unsigned - 256 * sum(byte >> 7 for byte in rest)
    if signed != expected:
        raise TarError(f"the header's checksum is {expected}, expected {unsigned}")


def _until_nul(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def parse_number(field: bytes) -> int:
    """Read a numeric header field: octal digits, or GNU's base 256 when the top bit is set.

    Raises:
        TarError: Neither of them, or beyond 64 bits.
    """
    digits = field[:-1]
    if not (digits.isdigit() and field[-1] in b" \0"):  # not what nearly all headers have
        if field[0] & 0x80:
            return _base_256(field)
        digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
        if not digits:
            return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise TarError(f"{field!r} is not an octal number")
    return int(digits, 8)


def _base_256(field: bytes) -> int:
    value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    if field[0] & 0x40:
        value -= 1 << (8 * len(field) - 1)
    if not -_INT64 <= value < _INT64:
        raise TarError("a base-256 number has more than 64 bits")
    return value


def parse_pax(data: bytes) -> list[tuple[str, bytes]]:
    r"""Read the records ``LENGTH KEY=VALUE\n`` of a pax header.

    Returns:
        Key and value in order; keys may repeat (sparse maps of version 0.0 do).

    Raises:
        TarError: A record breaks the format.
    """
    records = []
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 20)
        length = data[position:space] if space > 0 else b""
        if not length.isdigit():
            raise TarError("a pax record does not start with its length")
        end = position + int(length)
        record = data[space + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(data) or not record.endswith(b"\n") or not equals or not key:
            raise TarError("a pax record is not LENGTH KEY=VALUE")
        records.append((key.decode(errors="surrogateescape"), value[:-1]))
        position = end
    return records


def parse_pax_number(value: bytes, *, key: str) -> int:
    """Read an unsigned decimal number of a pax record.

    Raises:
        TarError: It is not one of at most 18 digits.
    """
    if not value.isdigit() or len(value) > 18:
        raise TarError(f"the pax record {key} is {value[:40]!r}, expected a decimal number")
    return int(value)


def parse_pax_time(value: bytes) -> tuple[int, int]:
    """Read a pax time, a decimal fraction of seconds since 1970 that may be negative.

    Returns:
        Seconds, rounded down, and nanoseconds (0..999,999,999); finer digits are dropped.

    Raises:
        TarError: It is not a decimal fraction.
    """
    match = _PAX_TIME.fullmatch(value)
    if match is None:
        raise TarError(f"{value[:40]!r} is not a pax time")
    total = int(match[2]) * 10**9 + int((match[3] or b"").ljust(9, b"0")[:9])
    return divmod(-total if match[1] else total, 10**9)
