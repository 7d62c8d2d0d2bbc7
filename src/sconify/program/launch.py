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
SECTION = ".sconify.manifest"

VARIABLES = ("SCONE_ALLOW_DLOPEN", "SCONE_FORK", "SCONE_HEAP", "SCONE_STACK")
"""The start-up variables that can be measured."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"([0-9]+)([kKmMgG]?)", re.ASCII)
_SHIFT = {"": 0, "k": 10, "m": 20, "g": 30}

_HEADER_SIZE = 64
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
_SECTION_TABLE_FIELDS = (slice(0x28, 0x30), slice(0x3C, 0x40))
"""``e_shoff``, and ``e_shnum`` with ``e_shstrndx``: what appending a section changes."""
_SHT_PROGBITS, _SHN_LORESERVE = 1, 0xFF00


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
    mode: str = FILE_PROTECTION

    def __post_init__(self) -> None:
        if not self.program.startswith("/") or "\0" in self.program:
            raise UserError(f"the program is an absolute path, got {self.program!r}", remedy="give --binary=/PATH")
        if any("\ud800" <= character <= "\udfff" for character in self.program):
            raise UserError(f"the program's path is no UTF-8: {self.program!r}", remedy="give --binary a path in UTF-8")
        for name, digest in (("runtime", self.runtime), ("cas_key", self.cas_key)):
            if digest is not None and not _DIGEST.fullmatch(digest):
                raise UserError(f"{name} is 64 lower-case hex digits, got {digest!r}")
        if self.mode != FILE_PROTECTION:
            raise UserError(f"the mode is {FILE_PROTECTION!r}, got {self.mode!r}")
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

    def canonical_json(self) -> bytes:
        """Return the manifest as canonical JSON: what stands in the section and is hashed."""
        document: dict[str, object] = {
            "format": FORMAT,
            "mode": self.mode,
            "program": self.program,
            "runtime": self.runtime,
            "variables": dict(self.variables),
        }
        if self.cas_key is not None:
            document["cas_key"] = self.cas_key
        return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def measurement(manifest: LaunchManifest, *, environment: Mapping[str, str] | None = None) -> str:
    """Return what ``SCONE_HASH=1`` prints: SHA-256 of the manifest, 64 hex digits.

    Args:
        manifest: The manifest of the binary.
        environment: The environment of the start; it changes the variables that the manifest has.

    Raises:
        UserError: A variable of the environment has no value that the runtime accepts.
    """
    given = environment or {}
    variables = {name: normal_variable(name, given.get(name, value)) for name, value in manifest.variables.items()}
    return hashlib.sha256(replace(manifest, variables=variables).canonical_json()).hexdigest()


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
    original = runtime.read_bytes()
    if manifest.runtime != runtime_digest(original):
        raise BugError(f"the manifest is for the runtime {manifest.runtime}, not for {runtime}")
    headers, names_index = _section_headers(original, runtime)
    names_offset, names_size = headers[names_index][4:6]
    names = original[names_offset : names_offset + names_size]
    if any(_name(names, header) == SECTION.encode() for header in headers):
        raise UntrustedDataError(f"{runtime} has a launch manifest already")

    output = bytearray(original + _padding(original))
    content = manifest.canonical_json()
    manifest_header = (len(names), _SHT_PROGBITS, 0, 0, len(output), len(content), 0, 0, 1, 0)
    output += content
    names += SECTION.encode() + b"\0"
    headers[names_index] = (*headers[names_index][:4], len(output), len(names), *headers[names_index][6:])
    output += names
    output += _padding(output)
    table = len(output)
    for header in (*headers, manifest_header):
        output += _SECTION_HEADER.pack(*header)
    output[0x28:0x30] = struct.pack("<Q", table)
    output[0x3C:0x3E] = struct.pack("<H", len(headers) + 1)
    return bytes(output)


def measure_binary(binary: bytes, *, environment: Mapping[str, str]) -> str:
    """Return the measurement of a sconified binary as it runs: what it would print by ``SCONE_HASH=1``.

    Args:
        binary: The whole file.
        environment: The environment of its start.

    Raises:
        UntrustedDataError: It is no sconified binary, or its manifest is not one that this version knows.
        UserError: A variable of the environment has no value that the runtime accepts.
    """
    headers, names_index = _section_headers(binary, Path("the executable"))
    names_offset, names_size = headers[names_index][4:6]
    names = binary[names_offset : names_offset + names_size]
    found = [header for header in headers if _name(names, header) == SECTION.encode()]
    if len(found) != 1:
        raise UntrustedDataError(f"the executable has {len(found)} launch manifests, expected one")
    offset, size = found[0][4:6]
    if offset + size > len(binary):
        raise UntrustedDataError("the launch manifest ends outside of the executable")
    try:
        document = json.loads(binary[offset : offset + size])
        if document.pop("format") != FORMAT:
            raise UntrustedDataError(f"the launch manifest is not of the format {FORMAT}")
        manifest = LaunchManifest(**{**document, "runtime": runtime_digest(binary[:offset])})
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, UserError):
        raise UntrustedDataError("the launch manifest is not one that this version knows") from None
    return measurement(manifest, environment=environment)


def read_manifest(binary: bytes, *, label: str) -> LaunchManifest:
    """Return the launch manifest of a sconified binary.

    Args:
        binary: The content of the file.
        label: What it is, for messages.

    Raises:
        UntrustedDataError: It is no sconified binary, or its manifest is malformed.
    """
    headers, names_index = _section_headers(binary, Path(label))
    names = binary[headers[names_index][4] : headers[names_index][4] + headers[names_index][5]]
    found = [header for header in headers if _name(names, header) == SECTION.encode()]
    if len(found) != 1:
        raise UntrustedDataError(f"{label} has {len(found)} launch manifests, expected one: it is no sconified binary")
    content = binary[found[0][4] : found[0][4] + found[0][5]]
    try:
        document = json.loads(content)
        if document.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        manifest = LaunchManifest(**document)
    except (ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        raise UntrustedDataError(f"the launch manifest of {label} is malformed: {error}") from None
    if manifest.canonical_json() != content:
        raise UntrustedDataError(f"the launch manifest of {label} is not canonical")
    return manifest


def _section_headers(elf: bytes, path: Path) -> tuple[list[tuple[int, ...]], int]:
    """Return the section headers of an ELF file and the number of the one of the names."""
    if len(elf) < _HEADER_SIZE or elf[:7] != b"\x7fELF\x02\x01\x01":
        raise UntrustedDataError(f"{path} is no 64-bit little-endian ELF file")
    (offset,) = struct.unpack_from("<Q", elf, 0x28)
    entry_size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
    end = offset + count * _SECTION_HEADER.size
    # Above SHN_LORESERVE the number stands elsewhere; a runtime has about thirty sections.
    if entry_size != _SECTION_HEADER.size or not names_index < count < _SHN_LORESERVE - 1 or end > len(elf):
        raise UntrustedDataError(f"{path} has no usable table of sections")
    return list(_SECTION_HEADER.iter_unpack(elf[offset:end])), names_index


def _name(names: bytes, header: tuple[int, ...]) -> bytes:
    """Return the name of a section."""
    return names[header[0] :].split(b"\0", 1)[0]


def _padding(content: bytes | bytearray) -> bytes:
    """Return the zeros up to a multiple of 8 bytes."""
    return bytes(-len(content) % 8)
