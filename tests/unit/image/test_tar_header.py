from __future__ import annotations

import contextlib
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.image.tar_header import (
    BLOCK,
    Header,
    TarError,
    parse_header,
    parse_number,
    parse_pax,
    parse_pax_number,
    parse_pax_time,
)

small_names = st.from_regex(r"\A[a-z0-9/._-]{1,90}\Z")


def block_of(**fields: object) -> bytes:
    info = tarfile.TarInfo("name")
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


@given(
    small_names,
    st.integers(0, 0o7777),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**40),
    st.integers(-(2**40), 2**40),
)
def test_headers_of_the_standard_library_are_read_back(
    name: str, mode: int, uid: int, gid: int, size: int, mtime: int
) -> None:
    header = parse_header(block_of(name=name, mode=mode, uid=uid, gid=gid, size=size, mtime=mtime))
    assert header == Header(name.encode(), mode, uid, gid, size, mtime, b"0", b"", 0, 0)


@given(st.binary(min_size=BLOCK, max_size=BLOCK))
def test_random_blocks_never_end_in_another_error(block: bytes) -> None:
    with contextlib.suppress(TarError):
        parse_header(block)


@given(st.integers(0, BLOCK - 1), st.integers(1, 255))
def test_any_changed_byte_is_refused(position: int, change: int) -> None:
    block = bytearray(block_of(size=123, mtime=456))
    block[position] ^= change
    try:
        parse_header(bytes(block))
    except TarError:
        return
    # What remains are other spellings of the same checksum: "0" for a space or a NUL.
    assert 148 <= position < 156


def test_a_block_of_zeros_ends_the_archive() -> None:
    assert parse_header(bytes(BLOCK)) is None


def test_a_short_block_is_refused() -> None:
    with pytest.raises(TarError, match="ends after 3"):
        parse_header(b"abc")


def test_a_checksum_of_signed_bytes_is_accepted() -> None:
    block = bytearray(block_of(name="ä"))
    total = sum(byte - 256 if byte > 127 else byte for byte in block[:148] + b" " * 8 + block[156:])
    block[148:156] = b"%06o\0 " % total
    header = parse_header(bytes(block))
    assert header is not None
    assert header.name == "ä".encode()


@given(st.integers(-(2**63), 2**63 - 1))
def test_base_256_numbers(value: int) -> None:
    field = bytearray((value % 2**96).to_bytes(12, "big"))
    if value >= 0:
        field[0] |= 0x80
    assert parse_number(bytes(field)) == value


@pytest.mark.parametrize(
    ("field", "value"), [(b"0000644\0", 0o644), (b"   644 \0", 0o644), (b"\0" * 8, 0), (b"7" * 8, 0o77777777)]
)
def test_octal_numbers(field: bytes, value: int) -> None:
    assert parse_number(field) == value


@pytest.mark.parametrize(
    "field",
    [b"0o17\0\0\0\0", b"1_0\0\0\0\0\0", b"+7\0\0\0\0\0\0", b"-7\0\0\0\0\0\0", b"8\0\0\0\0\0\0\0", b"1 2\0\0\0\0\0"],
)
def test_what_only_looks_like_a_number_is_refused(field: bytes) -> None:
    with pytest.raises(TarError):
        parse_number(field)


def test_numbers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(TarError, match="64 bits"):
        parse_number(b"\x80\xff" + bytes(10))


keys = st.from_regex(r"\A[A-Za-z.]{1,20}\Z")


def record(key: str, value: bytes) -> bytes:
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


@given(st.lists(st.tuples(keys, st.binary(max_size=200))))
def test_pax_records_are_read_back(records: list[tuple[str, bytes]]) -> None:
    assert parse_pax(b"".join(record(key, value) for key, value in records)) == records


@given(st.binary(max_size=300))
def test_random_pax_records_never_end_in_another_error(data: bytes) -> None:
    with contextlib.suppress(TarError):
        parse_pax(data)


@pytest.mark.parametrize(
    "data",
    [
        b"6 a=b",
        b"7 a=b\n",
        b"5 a=b\n",
        b"x a=b\n",
        b"6 =ab\n",
        b"5 ab\n",
        b"0 a=b\n",
        b" a=b\n",
        b"99999999999999999999999 a=b\n",
    ],
)
def test_malformed_pax_records_are_refused(data: bytes) -> None:
    with pytest.raises(TarError):
        parse_pax(data)


@pytest.mark.parametrize(
    ("text", "time"),
    [(b"12", (12, 0)), (b"12.5", (12, 500_000_000)), (b"-1.25", (-2, 750_000_000)), (b"0.1234567899", (0, 123456789))],
)
def test_pax_times(text: bytes, time: tuple[int, int]) -> None:
    assert parse_pax_time(text) == time


@pytest.mark.parametrize("text", [b"", b"1e9", b".5", b"1.x", b"--1", b"9" * 30])
def test_malformed_pax_times_are_refused(text: bytes) -> None:
    with pytest.raises(TarError):
        parse_pax_time(text)


def test_malformed_pax_numbers_are_refused() -> None:
    assert parse_pax_number(b"123", key="size") == 123
    for value in (b"", b"-1", b"1" * 19, b" 1"):
        with pytest.raises(TarError, match="size"):
            parse_pax_number(value, key="size")
