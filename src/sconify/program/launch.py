"""The launch manifest: makes the sconified binary out of the runtime, and computes its measurement.

The formats are those of ``docs/protocol.md``, sections 1 and 2; ``crates/runtime/src/manifest`` reads them. Both sides
are held together by the vectors of ``tests/vectors/launch``.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sconify.errors import BugError, ServiceError, UntrustedDataError, UserError

FORMAT = "sconify-launch/1"
FILE_PROTECTION = "file-protection"
BINARY_FS = "binary-fs"
SECTION = ".sconify.manifest"
INDEX_SECTION, DIGESTS_SECTION, PACKS_SECTION = ".sconify.index", ".sconify.digests", ".sconify.packs"
PAGE = 4096
"""What the packs of an embedded file system are aligned to: they are mapped."""

MAX_HEAD = 1 << 30
"""Bytes that a binary has before its packs, at most."""

VARIABLES = ("SCONE_ALLOW_DLOPEN", "SCONE_FORK", "SCONE_HEAP", "SCONE_STACK")
"""The start-up variables that can be measured."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NO_DIGEST = "0" * 64
_SIZE = re.compile(r"([0-9]+)([kKmMgG]?)", re.ASCII)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30}

_HEADER_SIZE = 64
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SECTION_TABLE_FIELDS = (slice(0x28, 0x30), slice(0x3C, 0x40))
"""``e_shoff``, and ``e_shnum`` with ``e_shstrndx``: what appending a section changes."""
_SHT_PROGBITS, _SHN_LORESERVE = 1, 0xFF00


@dataclass(frozen=True, kw_only=True)
class EmbeddedRoot:
    """What a manifest says of an embedded file system.

    Raises:
        UserError: A value is not of the form that the runtime accepts.
    """

    commitment: str
    """What only the right file system key has, 64 lower-case hex digits."""
    digest: str = _NO_DIGEST
    """What ``embedded_digest`` returns, 64 lower-case hex digits."""
    key: str | None = None
    """The file system key itself, where everybody may read the files."""

    def __post_init__(self) -> None:
        for name, value in self.document().items():
            if not _DIGEST.fullmatch(value):
                raise UserError(f"file_system.{name} is 64 lower-case hex digits, got {value!r}")

    def document(self) -> dict[str, str]:
        """Return what stands in the manifest."""
        document = {"commitment": self.commitment, "digest": self.digest}
        return document if self.key is None else {**document, "key": self.key}


@dataclass(frozen=True, slots=True)
class EmbeddedFiles:
    """An embedded file system as it goes into the binary; the packs follow by themselves."""

    index: bytes
    digests: bytes
    packs_offset: int
    """Where in the binary the packs begin: what ``packs_offset`` returns, for sizes not below the real ones."""
    packs_size: int
    commitment: str
    key: str | None = None


@dataclass(frozen=True, kw_only=True)
class LaunchManifest:
    """What a sconified binary is and may do. Hashed, it is the measurement.

    Raises:
        UserError: A value is not of the form that the runtime accepts.
    """

    program: str
    """Absolute path of the binary in the image."""
    runtime: str
    """Digest of the runtime, 64 lower-case hex digits; see ``runtime_digest``."""
    cas_key: str | None = None
    """SHA-256 of the CAS key's SubjectPublicKeyInfo, 64 lower-case hex digits. Without it nothing is attested."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """The measured start-up variables, in normal form."""
    file_system: EmbeddedRoot | None = None
    """The embedded file system; None if it stands in files of its own."""

    @property
    def mode(self) -> str:
        """Where the protected file system is."""
        return FILE_PROTECTION if self.file_system is None else BINARY_FS

    def __post_init__(self) -> None:
        if not self.program.startswith("/") or "\0" in self.program:
            raise UserError(f"the program is an absolute path, got {self.program!r}", remedy="give --binary=/PATH")
        if any("\ud800" <= character <= "\udfff" for character in self.program):
            raise UserError(f"the program's path is no UTF-8: {self.program!r}", remedy="give --binary a path in UTF-8")
        for name, digest in (("runtime", self.runtime), ("cas_key", self.cas_key)):
            if digest is not None and not _DIGEST.fullmatch(digest):
                raise UserError(f"{name} is 64 lower-case hex digits, got {digest!r}")
        for name, value in self.variables.items():
            if normal_variable(name, value) != value:
                raise UserError(f"{name} is not in normal form: {value!r}")

    @classmethod
    def for_runtime(
        cls, runtime: Path, *, program: str, cas_key: str | None, variables: Mapping[str, str]
    ) -> LaunchManifest:
        """Make the manifest of a program that this runtime is to launch.

        Args:
            runtime: The runtime's file, as ``runtime_path`` names it.
            program: Absolute path of the binary in the image.
            cas_key: SHA-256 of the CAS key's SubjectPublicKeyInfo, 64 hex digits.
            variables: Start-up variables, in any form that ``normal_variable`` accepts.

        Raises:
            UserError: A value is not of the form that the runtime accepts.
        """
        return cls(
            program=program,
            runtime=runtime_digest(runtime.read_bytes()),
            cas_key=cas_key,
            variables={name: normal_variable(name, value) for name, value in variables.items()},
        )

    @classmethod
    def parse(cls, content: bytes) -> LaunchManifest:
        """Read a manifest.

        Raises:
            UntrustedDataError: It is not one that this version knows, or no canonical JSON.
        """
        try:
            document = json.loads(content)
            if document.pop("format") != FORMAT:
                raise UntrustedDataError(f"the launch manifest is not of the format {FORMAT}")
            mode = document.pop("mode")
            if (root := document.get("file_system")) is not None:
                document["file_system"] = EmbeddedRoot(**root)
            manifest = cls(**document)
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, UserError):
            raise UntrustedDataError("the launch manifest is not one that this version knows") from None
        if manifest.mode != mode or manifest.canonical_json() != content:
            raise UntrustedDataError("the launch manifest is no canonical JSON, or of another mode")
        return manifest

    def document(self) -> dict[str, object]:
        """Return the manifest as a JSON-ready document."""
        document: dict[str, object] = {
            "format": FORMAT,
            "mode": self.mode,
            "program": self.program,
            "runtime": self.runtime,
            "variables": dict(self.variables),
        }
        if self.cas_key is not None:
            document["cas_key"] = self.cas_key
        if self.file_system is not None:
            document["file_system"] = self.file_system.document()
        return document

    def canonical_json(self) -> bytes:
        """Return the manifest as canonical JSON: what stands in the section and is hashed."""
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def measurement(manifest: LaunchManifest, *, environment: Mapping[str, str] | None = None) -> str:
    """Return what ``SCONE_HASH=1`` prints: SHA-256 of the manifest, 64 hex digits.

    Args:
        manifest: The manifest of the binary.
        environment: The environment of the start; it changes the variables that the manifest has.

    Raises:
        UserError: A variable of the environment has no value that the runtime accepts.
    """
    return hashlib.sha256(with_variables(manifest, environment or {}).canonical_json()).hexdigest()


def with_variables(manifest: LaunchManifest, environment: Mapping[str, str]) -> LaunchManifest:
    """Return the manifest of a start: its variables have the values of the environment, where that has them.

    Raises:
        UserError: A variable of the environment has no value that the runtime accepts.
    """
    variables = {
        name: normal_variable(name, environment.get(name, value)) for name, value in manifest.variables.items()
    }
    return replace(manifest, variables=variables)


def normal_variable(name: str, value: str) -> str:
    """Return the normal form of a start-up variable's value: sizes are decimal numbers of bytes.

    Raises:
        UserError: There is no such variable, or the value is none of it.
    """
    if name in {"SCONE_HEAP", "SCONE_STACK"}:
        match = _SIZE.fullmatch(value)
        digits = match[1].lstrip("0") if match else ""
        size = int(digits) << _SHIFT[match[2].lower()] if match and 0 < len(digits) <= 20 else 0
        if not 0 < size < 1 << 64:
            raise UserError(
                f"{name} is a number of bytes, or one with K, M or G behind it, got {value!r}",
                remedy="give another value",
            )
        return str(size)
    allowed = {"SCONE_ALLOW_DLOPEN": ("0", "1", "2"), "SCONE_FORK": ("0", "1")}.get(name)
    if allowed is None:
        raise UserError(f"{name} is no measured start-up variable", remedy=f"give one of {', '.join(VARIABLES)}")
    if value not in allowed:
        raise UserError(f"{name} is one of {', '.join(allowed)}, got {value!r}", remedy="give one of them")
    return value


def runtime_path() -> Path:
    """Return the static runtime that is installed with this package.

    Raises:
        ServiceError: It was not built.
    """
    path = Path(__file__).parent.parent / "runtime" / "sconify-runtime"
    if not path.is_file():
        raise ServiceError(f"the runtime is missing from this installation: {path}", remedy="run pip install . again")
    return path


def runtime_digest(runtime: bytes) -> str:
    """Return the digest that stands in a launch manifest for a runtime: 64 hex digits.

    Args:
        runtime: The content of an ELF file without a manifest section.
    """
    before = bytearray(runtime + _padding(runtime))
    for changed in _SECTION_TABLE_FIELDS:
        before[changed] = bytes(changed.stop - changed.start)
    return hashlib.sha256(before).hexdigest()


def sconified_binary(runtime: Path, manifest: LaunchManifest) -> bytes:
    """Return the runtime with the manifest as one more ELF section.

    Nothing of the runtime moves: behind it stand padding to 8 bytes, the manifest, a new table of section names and a
    new table of section headers.

    Raises:
        UntrustedDataError: The file is no 64-bit little-endian ELF file, or has a manifest already.
        BugError: The manifest is that of another runtime.
    """
    return _with_sections(_runtime_of(runtime, manifest), runtime, [(SECTION, manifest.canonical_json())])[0]


def embedding_binary(runtime: Path, manifest: LaunchManifest, files: EmbeddedFiles) -> tuple[LaunchManifest, bytes]:
    """Return the manifest with an embedded file system in it, and the sconified binary up to where the packs follow.

    Behind the manifest stand the index, the digests of the chunks, padding, and both tables.

    Raises:
        UntrustedDataError: The file is no 64-bit little-endian ELF file, or has a manifest already.
        BugError: The manifest is that of another runtime.
    """
    original = _runtime_of(runtime, manifest)
    root = EmbeddedRoot(commitment=files.commitment, key=files.key)
    packs = range(files.packs_offset, files.packs_offset + files.packs_size)
    for _ in range(2):  # the digest has one length, so nothing moves when it is put in
        manifest = replace(manifest, file_system=root)
        contents = [
            (SECTION, manifest.canonical_json()), (INDEX_SECTION, files.index), (DIGESTS_SECTION, files.digests)
        ]  # fmt: skip
        binary, end = _with_sections(original, runtime, contents, packs=packs)
        root = replace(root, digest=embedded_digest(manifest, binary, end))
    return manifest, binary


def packs_offset(runtime: Path, manifest: LaunchManifest, *, index_size: int, digests_size: int) -> int:
    """Return where the packs of an embedded file system begin in the sconified binary.

    So they can be written, after as many bytes, before the sizes of the index and of the digests are known.

    Args:
        runtime: The runtime's file.
        manifest: The manifest; its file system is not looked at, but for whether it has a key.
        index_size: Bytes of the encrypted index, at most.
        digests_size: Bytes of the digests, at most.

    Raises:
        UserError: It would be beyond ``MAX_HEAD``.
        UntrustedDataError: The file is no 64-bit little-endian ELF file, or has a manifest already.
        BugError: The manifest is that of another runtime.
    """
    contents = [
        (SECTION, manifest.canonical_json()), (INDEX_SECTION, bytes(index_size)), (DIGESTS_SECTION, bytes(digests_size))
    ]  # fmt: skip
    binary, _ = _with_sections(_runtime_of(runtime, manifest), runtime, contents, packs=range(0))
    offset = -(-len(binary) // PAGE) * PAGE
    if offset > MAX_HEAD:
        raise UserError(
            f"the index of the embedded file system would have up to {index_size} bytes", remedy="embed fewer files"
        )
    return offset


def embedded_digest(manifest: LaunchManifest, head: bytes, end: int) -> str:
    """Return the digest of an embedded file system: of all that stands before the packs and is not of the runtime.

    Args:
        manifest: The manifest; it counts as if the digest in it were zeros.
        head: The binary up to its packs.
        end: Where the manifest ends in it.
    """
    root = manifest.file_system
    assert root is not None
    digest = hashlib.sha256()
    for changed in _SECTION_TABLE_FIELDS:
        digest.update(head[changed])
    digest.update(replace(manifest, file_system=replace(root, digest=_NO_DIGEST)).canonical_json())
    digest.update(memoryview(head)[end:])
    return digest.hexdigest()


def _runtime_of(runtime: Path, manifest: LaunchManifest) -> bytes:
    original = runtime.read_bytes()
    if manifest.runtime != runtime_digest(original):
        raise BugError(f"the manifest is for the runtime {manifest.runtime}, not for {runtime}")
    return original


def _with_sections(
    original: bytes, path: Path, contents: list[tuple[str, bytes]], *, packs: range | None = None
) -> tuple[bytes, int]:
    """Append sections; return the file and where the first of them ends.

    With ``packs``, there is a last section at that place, and where there is room before it, the tables end there.
    """
    headers, names_index = section_headers(original, str(path))
    names_offset, names_size = headers[names_index][4:6]
    names = original[names_offset : names_offset + names_size]
    if any(section_name(names, header) == SECTION.encode() for header in headers):
        raise UntrustedDataError(f"{path} has a launch manifest already")
    output = bytearray(original + _padding(original))
    first_end = len(output) + len(contents[0][1])

    def header(name: str, offset: int, size: int, alignment: int) -> tuple[int, ...]:
        nonlocal names
        names += name.encode() + b"\0"
        return (len(names) - len(name) - 1, _SHT_PROGBITS, 0, 0, offset, size, 0, 0, alignment, 0)

    made = []
    for name, content in contents:
        made.append(header(name, len(output), len(content), 1))
        output += content
    if packs is not None:
        made.append(header(PACKS_SECTION, packs.start, len(packs), PAGE))
        tables = len(names) + len(_padding(names)) + (len(headers) + len(made)) * _SECTION_HEADER.size
        output += _padding(output)
        output += bytes(max(0, packs.start - len(output) - tables))
    headers[names_index] = (*headers[names_index][:4], len(output), len(names), *headers[names_index][6:])
    output += names
    output += _padding(output)
    table = len(output)
    for each in (*headers, *made):
        output += _SECTION_HEADER.pack(*each)
    output[0x28:0x30] = struct.pack("<Q", table)
    output[0x3C:0x3E] = struct.pack("<H", len(headers) + len(made))
    return bytes(output), first_end


def section_headers(elf: bytes, path: str) -> tuple[list[tuple[int, ...]], int]:
    """Return the section headers of an ELF file and the number of the one of the names.

    The fields of a header are those of ``Elf64_Shdr``: name, type, flags, address, offset, size, and so on.

    Raises:
        UntrustedDataError: The file is no 64-bit little-endian ELF file, or its table is not in it.
    """
    if len(elf) < _HEADER_SIZE or elf[:7] != b"\x7fELF\x02\x01\x01":
        raise UntrustedDataError(f"{path} is no 64-bit little-endian ELF file")
    (offset,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    end = offset + count * _SECTION_HEADER.size
    # Above SHN_LORESERVE the number stands elsewhere; a runtime has about thirty sections.
    if entry_size != _SECTION_HEADER.size or not names_index < count < _SHN_LORESERVE - 1 or end > len(elf):
        raise UntrustedDataError(f"{path} has no usable table of sections")
    return list(_SECTION_HEADER.iter_unpack(elf[offset:end])), names_index


def section_name(names: bytes, header: tuple[int, ...]) -> bytes:
    """Return the name of a section."""
    return names[header[0] :].split(b"\0", 1)[0]


def _padding(content: bytes | bytearray) -> bytes:
    """Return the zeros up to a multiple of 8 bytes."""
    return bytes(-len(content) % 8)
