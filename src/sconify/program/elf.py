"""ELF headers: what an executable or a shared object is and which others it asks for.

Only the program headers and the dynamic section are read, as the kernel and the dynamic loader do; section headers say
nothing about what runs.
Formats: System V ABI, chapters 4 and 5 (gabi), and its x86-64 supplement.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass, replace
from typing import BinaryIO

from sconify.errors import UntrustedDataError

MAGIC = b"\x7fELF"
MACHINE_X86_64 = 62
IDENTITY_SIZE = 20
"""Bytes of a file that :func:`identify` needs."""

MAX_PROGRAM_HEADERS = 1024
"""Linkers write about ten; the kernel itself takes at most 64 KiB of them, which is 1170."""
MAX_DYNAMIC_ENTRIES = 4096
"""Linkers write about thirty and one for each needed library; without a limit, memory would be the file's choice."""
MAX_STRING = 4096
"""PATH_MAX: a longer name can't be opened."""
MAX_SEARCH_PATH = 65536
"""Package managers that give each package its own directory write some thousands of bytes."""
MAX_INTERPRETER = 4096
"""The kernel refuses an interpreter path that is longer than PATH_MAX."""

_ARCHITECTURES = {
    2: "sparc",
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    43: "sparc64",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_DYNAMIC_ENTRY = struct.Struct("<QQ")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 14, 15, 29
_DT_FLAGS_1 = 0x6FFFFFFB
_DF_1_NODEFLIB, _DF_1_PIE = 0x800, 0x08000000


class ElfType(enum.IntEnum):
    """``e_type`` of the header."""

    RELOCATABLE = 1
    EXECUTABLE = 2
    SHARED = 3
    """A shared object or a position-independent executable."""
    CORE = 4


class Libc(enum.Enum):
    """The C library whose dynamic loader starts a program."""

    GLIBC = "glibc"
    MUSL = "musl"
    NONE = "none"
    """A static program: no dynamic loader has a part in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What the first bytes of an ELF file say of all its kinds, those included that we don't run."""

    bits: int
    little_endian: bool
    machine: int

    @property
    def architecture(self) -> str:
        """The usual name of the architecture, such as ``aarch64``."""
        name = _ARCHITECTURES.get(self.machine, f"machine {self.machine}")
        if self.machine == 21 and self.little_endian:
            return "ppc64le"
        return name

    @property
    def runnable(self) -> bool:
        """True for 64-bit x86-64, the one architecture that the runtime exists for."""
        return self.bits == 64 and self.little_endian and self.machine == MACHINE_X86_64


@dataclass(frozen=True, slots=True, kw_only=True)
class Elf:
    """A 64-bit little-endian ELF file as its loader sees it."""

    type: ElfType
    machine: int
    interpreter: str | None
    """Path of the dynamic loader (PT_INTERP)."""
    dynamic: bool
    """True if there is a dynamic section; a static position-independent executable has one too."""
    needed: tuple[str, ...] = ()
    soname: str | None = None
    rpath: tuple[str, ...] = ()
    """Of DT_RPATH, split at colons; empty when there is a DT_RUNPATH, which makes loaders ignore it."""
    runpath: tuple[str, ...] = ()
    """Of DT_RUNPATH, split at colons."""
    no_default_dirs: bool = False
    """Linked with ``-z nodefaultlib``: not searched for in the default directories."""
    executable: bool = False
    """False for relocatable files, core dumps, and shared objects that are no position-independent executable."""

    @property
    def is_static(self) -> bool:
        """True for a program that runs with no dynamic loader and asks for no shared object."""
        return self.interpreter is None and not self.needed

    @property
    def libc(self) -> Libc | None:
        """The C library, told from the loader's name, else from the needed names; None if neither tells."""
        if self.interpreter is not None:
            name = self.interpreter.rpartition("/")[2]
            if name.startswith("ld-musl-"):
                return Libc.MUSL
            if name.startswith("ld-linux"):
                return Libc.GLIBC
        for name in self.needed:
            if name.startswith("libc.musl-"):
                return Libc.MUSL
            if name == "libc.so.6":
                return Libc.GLIBC
        return Libc.NONE if self.is_static else None


def identify(head: bytes) -> Identity | None:
    """Tell what the first bytes of a file say.

    Args:
        head: The first ``IDENTITY_SIZE`` bytes of the file, fewer if it is shorter.

    Returns:
        The identity; None if the bytes are no ELF header.
    """
    if len(head) < IDENTITY_SIZE or head[:4] != MAGIC or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    little_endian = head[5] == 1
    machine = int.from_bytes(head[18:20], "little" if little_endian else "big")
    return Identity(bits=32 * head[4], little_endian=little_endian, machine=machine)


def parse_elf(stream: BinaryIO, *, name: str) -> Elf:
    """Read what a loader needs of an ELF file.

    Args:
        stream: The file, seekable.
        name: The file's name for error messages.

    Returns:
        The headers' meaning. Undecodable bytes of names are kept as surrogate escapes.

    Raises:
        UntrustedDataError: It is no 64-bit little-endian ELF file, it is cut off, or a header leads out of the file or
            is larger than any real one.
    """
    return _Reader(stream, name).elf()


@dataclass(frozen=True, slots=True)
class _Segment:
    type: int
    offset: int
    address: int
    file_size: int


class _Reader:
    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._size = stream.seek(0, 2)

    def elf(self) -> Elf:
        head = self._read(0, min(self._size, _HEADER.size), "header")
        identity = identify(head)
        if identity is None:
            raise self._malformed("not an ELF file")
        if identity.bits != 64 or not identity.little_endian:
            raise self._malformed(
                f"expected a 64-bit little-endian ELF file, got {identity.bits}-bit {identity.architecture}"
            )
        if len(head) < _HEADER.size:
            raise self._malformed(f"the header has {len(head)} bytes, expected {_HEADER.size}")
        kind, machine, _, entry, table, _, _, _, entry_size, count, *_ = _HEADER.unpack(head)
        try:
            elf_type = ElfType(kind)
        except ValueError:
            raise self._malformed(f"unknown ELF type {kind}") from None
        segments = self._segments(table, entry_size, count)
        interpreter = self._interpreter(segments)
        base = Elf(
            type=elf_type,
            machine=machine,
            interpreter=interpreter,
            dynamic=False,
            executable=elf_type is ElfType.EXECUTABLE or interpreter is not None,
        )
        dynamic = next((segment for segment in segments if segment.type == _PT_DYNAMIC), None)
        return base if dynamic is None else self._dynamic(base, entry=entry, segments=segments, segment=dynamic)

    def _segments(self, table: int, entry_size: int, count: int) -> list[_Segment]:
        if count == 0:
            return []
        if entry_size != _PROGRAM_HEADER.size:
            raise self._malformed(f"program headers of {entry_size} bytes, expected {_PROGRAM_HEADER.size}")
        if count > MAX_PROGRAM_HEADERS:
            raise self._malformed(f"{count} program headers, expected at most {MAX_PROGRAM_HEADERS}")
        data = self._read(table, count * entry_size, "program headers")
        return [
            _Segment(kind, offset, address, file_size)
            for kind, _, offset, address, _, file_size, _, _ in _PROGRAM_HEADER.iter_unpack(data)
        ]

    def _interpreter(self, segments: list[_Segment]) -> str | None:
        segment = next((segment for segment in segments if segment.type == _PT_INTERP), None)
        if segment is None:
            return None
        if not 2 <= segment.file_size <= MAX_INTERPRETER:
            raise self._malformed(f"interpreter path of {segment.file_size} bytes, expected 2 to {MAX_INTERPRETER}")
        data = self._read(segment.offset, segment.file_size, "interpreter path")
        path, end, _ = data.partition(b"\0")
        if not end or not path.startswith(b"/"):
            raise self._malformed("the interpreter path is not absolute or does not end")
        return _text(path)

    def _dynamic(self, base: Elf, *, entry: int, segments: list[_Segment], segment: _Segment) -> Elf:
        needed: list[int] = []
        values: dict[int, int] = {}
        for tag, value in self._dynamic_entries(segment):
            if tag == _DT_NEEDED:
                needed.append(value)
            else:
                values[tag] = value
        strings = self._string_table(values, segments)
        flags = values.get(_DT_FLAGS_1, 0)
        soname = values.get(_DT_SONAME)
        return replace(
            base,
            dynamic=True,
            needed=tuple(self._string(strings, offset, MAX_STRING) for offset in needed),
            soname=None if soname is None else self._string(strings, soname, MAX_STRING),
            rpath=() if _DT_RUNPATH in values else self._search_path(strings, values.get(_DT_RPATH)),
            runpath=self._search_path(strings, values.get(_DT_RUNPATH)),
            no_default_dirs=bool(flags & _DF_1_NODEFLIB),
            executable=base.executable
            or bool(flags & _DF_1_PIE)
            or (base.type is ElfType.SHARED and entry != 0 and soname is None and not needed),
        )

    def _dynamic_entries(self, segment: _Segment) -> list[tuple[int, int]]:
        size = min(segment.file_size, MAX_DYNAMIC_ENTRIES * _DYNAMIC_ENTRY.size)
        data = self._read(segment.offset, size - size % _DYNAMIC_ENTRY.size, "dynamic section")
        entries: list[tuple[int, int]] = []
        for tag, value in _DYNAMIC_ENTRY.iter_unpack(data):
            if tag == _DT_NULL:
                return entries
            entries.append((tag, value))
        raise self._malformed(f"the dynamic section does not end within {len(entries)} entries")

    def _string_table(self, values: dict[int, int], segments: list[_Segment]) -> range:
        """Return where in the file the dynamic strings stand; empty if there are none."""
        address, size = values.get(_DT_STRTAB), values.get(_DT_STRSZ)
        if address is None or size is None:
            return range(0)
        for segment in segments:
            if segment.type == _PT_LOAD and segment.address <= address < segment.address + segment.file_size:
                start = segment.offset + address - segment.address
                return range(start, start + size)
        raise self._malformed("the dynamic strings are in no loaded segment")

    def _search_path(self, strings: range, offset: int | None) -> tuple[str, ...]:
        if offset is None:
            return ()
        return tuple(part for part in self._string(strings, offset, MAX_SEARCH_PATH).split(":") if part)

    def _string(self, strings: range, offset: int, limit: int) -> str:
        if offset >= len(strings):
            raise self._malformed(f"a name at {offset} of {len(strings)} bytes of dynamic strings")
        text, end, _ = self._read(
            strings.start + offset, min(limit + 1, len(strings) - offset), "dynamic strings"
        ).partition(b"\0")
        if not end:
            raise self._malformed(f"a dynamic string does not end within {limit} bytes")
        return _text(text)

    def _read(self, offset: int, size: int, what: str) -> bytes:
        if offset > self._size or size > self._size - offset:
            raise self._malformed(f"the {what} lies at {offset}, {size} bytes, but the file has {self._size}")
        self._stream.seek(offset)
        data = self._stream.read(size)
        if len(data) != size:
            raise self._malformed(f"the {what} is cut off: got {len(data)} bytes, expected {size}")
        return data

    def _malformed(self, what: str) -> UntrustedDataError:
        return UntrustedDataError(f"{self._name}: malformed ELF file: {what}")


def _text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
