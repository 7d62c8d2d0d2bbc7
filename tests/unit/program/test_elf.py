from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sconify.errors import UntrustedDataError
from sconify.program.elf import (
    MAX_DYNAMIC_ENTRIES,
    MAX_PROGRAM_HEADERS,
    MAX_STRING,
    Elf,
    Identity,
    Libc,
    identify,
    parse_elf,
)

MakeElf = Callable[..., bytes]
GLIBC_LOADER = "/lib64/ld-linux-x86-64.so.2"

names = st.text(st.characters(codec="utf-8", exclude_characters="\0:"), min_size=1, max_size=20)
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def parse(data: bytes) -> Elf:
    return parse_elf(io.BytesIO(data), name="/bin/app")


def parse_or_refuse(data: bytes) -> Elf | str:
    try:
        return parse(data)
    except UntrustedDataError as error:
        return error.what


def refusal(data: bytes) -> str:
    with pytest.raises(UntrustedDataError) as error:
        parse(data)
    return error.value.what


@shared
@given(
    needed=st.lists(names, max_size=8),
    soname=st.none() | names,
    rpath=st.lists(names, min_size=1, max_size=4),
    runpath=st.none() | st.lists(names, min_size=1, max_size=4),
)
def test_dynamic_section_is_read_as_written(
    make_elf: MakeElf, needed: list[str], soname: str | None, rpath: list[str], runpath: list[str] | None
) -> None:
    elf = parse(
        make_elf(
            interpreter=GLIBC_LOADER,
            needed=tuple(needed),
            soname=soname,
            rpath=":".join(rpath),
            runpath=None if runpath is None else ":".join(runpath),
        )
    )
    assert elf.needed == tuple(needed)
    assert elf.soname == soname
    assert elf.rpath == (tuple(rpath) if runpath is None else ())
    assert elf.runpath == tuple(runpath or ())
    assert elf.interpreter == GLIBC_LOADER
    assert elf.dynamic


def test_another_parser_reads_the_same(make_elf: MakeElf) -> None:
    data = make_elf(interpreter=GLIBC_LOADER, needed=("libc.so.6",), runpath="/a:/b")
    segments: list[Any] = list(ELFFile(io.BytesIO(data)).iter_segments())
    tags: dict[str, Any] = {tag.entry.d_tag: tag for tag in segments[2].iter_tags()}
    assert segments[1].get_interp_name() == parse(data).interpreter
    assert (tags["DT_NEEDED"].needed,) == parse(data).needed
    assert tags["DT_RUNPATH"].runpath.split(":") == list(parse(data).runpath)


@pytest.mark.parametrize(
    ("arguments", "libc"),
    [
        ({"interpreter": GLIBC_LOADER}, Libc.GLIBC),
        ({"interpreter": "/lib/ld-musl-x86_64.so.1"}, Libc.MUSL),
        ({"interpreter": "/custom/loader", "needed": ("libm.so.6", "libc.so.6")}, Libc.GLIBC),
        ({"interpreter": "/custom/loader", "needed": ("libc.musl-x86_64.so.1",)}, Libc.MUSL),
        ({"interpreter": "/custom/loader"}, None),
        ({"static": True, "elf_type": 2}, Libc.NONE),
        ({"flags_1": 0x08000000}, Libc.NONE),
    ],
)
def test_libc_is_told_from_loader_then_from_needed_names(
    make_elf: MakeElf, arguments: dict[str, Any], libc: Libc | None
) -> None:
    assert parse(make_elf(**arguments)).libc is libc


@pytest.mark.parametrize(
    ("arguments", "executable"),
    [
        ({"elf_type": 2, "static": True}, True),
        ({"interpreter": GLIBC_LOADER}, True),
        ({"flags_1": 0x08000000}, True),
        ({"entry": 0x1000}, True),
        ({"entry": 0x1000, "soname": "libx.so.1"}, False),
        ({"soname": "libx.so.1", "needed": ("libc.so.6",)}, False),
        ({"elf_type": 1, "static": True}, False),
    ],
)
def test_executables_are_told_from_shared_objects(
    make_elf: MakeElf, arguments: dict[str, Any], executable: bool
) -> None:
    assert parse(make_elf(**arguments)).executable is executable


def test_nodefaultlib_flag(make_elf: MakeElf) -> None:
    assert parse(make_elf(flags_1=0x800)).no_default_dirs
    assert not parse(make_elf()).no_default_dirs


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\x00", Identity(bits=64, little_endian=True, machine=62)),
        (b"\x7fELF\x01\x01" + bytes(12) + b"\x03\x00", Identity(bits=32, little_endian=True, machine=3)),
        (b"\x7fELF\x02\x02" + bytes(12) + b"\x00\x16", Identity(bits=64, little_endian=False, machine=22)),
        (b"\x7fELF\x02\x01", None),
        (b"\x7fELF\x03\x01" + bytes(14), None),
        (b"#!/bin/sh\n" + bytes(20), None),
        (b"", None),
    ],
)
def test_identity(head: bytes, expected: Identity | None) -> None:
    assert identify(head) == expected


def test_architecture_names() -> None:
    x86 = Identity(bits=64, little_endian=True, machine=62)
    assert (x86.architecture, x86.runnable) == ("x86_64", True)
    assert not replace(x86, bits=32).runnable
    assert not replace(x86, machine=183).runnable
    assert replace(x86, machine=183).architecture == "aarch64"
    assert replace(x86, machine=21).architecture == "ppc64le"
    assert replace(x86, machine=21, little_endian=False).architecture == "ppc64"
    assert replace(x86, machine=999).architecture == "machine 999"


def patched(data: bytes, offset: int, layout: str, value: int) -> bytes:
    return data[:offset] + struct.pack(layout, value) + data[offset + struct.calcsize(layout) :]


def test_refuses_what_no_linker_writes(make_elf: MakeElf) -> None:
    good = make_elf(interpreter=GLIBC_LOADER, needed=("libc.so.6",))
    interp, dynamic = 64 + 56, 64 + 2 * 56
    assert "not an ELF file" in refusal(b"#!/bin/sh\n")
    assert "not an ELF file" in refusal(b"")
    assert "expected a 64-bit little-endian ELF file, got 32-bit i386" in refusal(
        b"\x7fELF\x01\x01" + bytes(12) + b"\x03\0"
    )
    assert "the header has 40 bytes, expected 64" in refusal(good[:40])
    assert "unknown ELF type 9" in refusal(patched(good, 16, "<H", 9))
    assert "program headers of 32 bytes, expected 56" in refusal(patched(good, 54, "<H", 32))
    assert f"expected at most {MAX_PROGRAM_HEADERS}" in refusal(patched(good, 56, "<H", 0xFFFF))
    assert "the program headers lies at" in refusal(patched(good, 32, "<Q", 2**64 - 1))
    assert "the interpreter path lies at" in refusal(patched(good, interp + 8, "<Q", 2**63))
    assert "interpreter path of 1073741824 bytes" in refusal(patched(good, interp + 32, "<Q", 2**30))
    assert "not absolute or does not end" in refusal(patched(good, interp + 32, "<Q", 5))
    assert "the dynamic section lies at" in refusal(patched(good, dynamic + 32, "<Q", 2**60))
    assert "does not end within 1 entries" in refusal(patched(good, dynamic + 32, "<Q", 16))
    assert "does not end within" in refusal(make_elf(needed=("x" * (MAX_STRING + 1),)))
    assert "does not end within" in refusal(make_elf(needed=("x",) * MAX_DYNAMIC_ENTRIES))
    assert "in no loaded segment" in refusal(patched(good, 64, "<I", 7))
    tags = good.index(struct.pack("<QQ", 1, 1))
    assert "a name at 65536 of" in refusal(patched(good, tags + 8, "<Q", 65536))
    no_strings = patched(good, good.index(struct.pack("<Q", 5), tags), "<Q", 99)
    assert "a name at 1 of 0 bytes" in refusal(no_strings)


@shared
@given(data=st.data())
def test_corrupt_files_are_read_or_refused_never_worse(make_elf: MakeElf, data: st.DataObject) -> None:
    good = make_elf(interpreter=GLIBC_LOADER, needed=("libc.so.6", "libm.so.6"), runpath="$ORIGIN/../lib")
    corrupt = bytearray(good)
    for position in data.draw(st.lists(st.integers(4, len(good) - 1), min_size=1, max_size=12)):
        corrupt[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    outcome = parse_or_refuse(bytes(corrupt[:cut]))
    assert isinstance(outcome, Elf) or outcome.startswith("/bin/app: malformed ELF file: ")


@given(st.binary(max_size=300))
def test_random_bytes_after_the_magic_are_refused_or_read(tail: bytes) -> None:
    outcome = parse_or_refuse(b"\x7fELF\x02\x01" + tail)
    assert isinstance(outcome, Elf) or "malformed ELF file" in outcome
