"""A root file system from a dict, and ELF files built byte by byte."""

from __future__ import annotations

import io
import posixpath
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest

from sconify.image.model import Entry, EntryType, Extent

Content = bytes | str | tuple[bytes, int] | None


class DictView:
    """A root file system: bytes are an executable, (bytes, mode) a file, a str a link's target, None a directory."""

    def __init__(self, contents: Mapping[str, Content]) -> None:
        self._entries: dict[str, Entry] = {"/": Entry(path="/", type=EntryType.DIRECTORY, mode=0o755)}
        self._bytes: dict[str, bytes] = {}
        for path, content in contents.items():
            parent = posixpath.dirname(path)
            while parent not in self._entries:
                self._entries[parent] = Entry(path=parent, type=EntryType.DIRECTORY, mode=0o755)
                parent = posixpath.dirname(parent)
            self._entries[path] = self._entry(path, content)

    def _entry(self, path: str, content: Content) -> Entry:
        if content is None:
            return Entry(path=path, type=EntryType.DIRECTORY, mode=0o755)
        if isinstance(content, str):
            return Entry(path=path, type=EntryType.SYMLINK, mode=0o777, target=content)
        data, mode = content if isinstance(content, tuple) else (content, 0o755)
        self._bytes[path] = data
        return Entry(path=path, type=EntryType.FILE, mode=mode, content=Extent(Path("unused"), 0, len(data)))

    def lookup(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def children(self, path: str) -> list[str]:
        return sorted(posixpath.basename(other) for other in self._entries if posixpath.dirname(other) == path != other)

    def walk(self, prefix: str) -> Iterator[Entry]:
        for path in sorted(self._entries):
            if path == prefix or path.startswith(prefix.rstrip("/") + "/"):
                yield self._entries[path]

    def open(self, entry: Entry) -> BinaryIO:
        return io.BytesIO(self._bytes[entry.path])


def build_elf(
    *,
    interpreter: str | None = None,
    needed: tuple[str, ...] = (),
    soname: str | None = None,
    rpath: str | None = None,
    runpath: str | None = None,
    flags_1: int = 0,
    elf_type: int = 3,
    machine: int = 62,
    entry: int = 0,
    static: bool = False,
) -> bytes:
    """Return a 64-bit ELF file of headers alone: one loaded segment, the interpreter, the dynamic section."""
    strings = bytearray(b"\0")

    def add(text: str) -> int:
        offset = len(strings)
        strings.extend(text.encode() + b"\0")
        return offset

    tags = [(1, add(name)) for name in needed]
    tags += [(tag, add(text)) for tag, text in ((14, soname), (15, rpath), (29, runpath)) if text is not None]
    base = 0x400000
    program_headers = 1 + (interpreter is not None) + (not static)
    interp = b"" if interpreter is None else interpreter.encode() + b"\0"
    interp_at = 64 + 56 * program_headers
    strings_at = interp_at + len(interp)
    dynamic_at = (strings_at + len(strings) + 7) // 8 * 8
    tags += [(5, base + strings_at), (10, len(strings)), (0x6FFFFFFB, flags_1), (0, 0)]
    dynamic = b"".join(struct.pack("<QQ", *tag) for tag in tags)
    size = dynamic_at + len(dynamic)
    headers = [(1, 0, size)]
    if interpreter is not None:
        headers.append((3, interp_at, len(interp)))
    if not static:
        headers.append((2, dynamic_at, len(dynamic)))
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", elf_type, machine, 1, entry, 64, 0, 0, 64, 56, len(headers), 64, 0, 0)
    table = b"".join(
        struct.pack("<IIQQQQQQ", kind, 5, offset, base + offset, base + offset, length, length, 8)
        for kind, offset, length in headers
    )
    body = head + table + interp + bytes(strings)
    return body.ljust(dynamic_at, b"\0") + dynamic


@pytest.fixture
def make_view() -> Callable[[Mapping[str, Content]], DictView]:
    return DictView


@pytest.fixture
def make_elf() -> Callable[..., bytes]:
    return build_elf
