"""Measures a sconified binary: what ``SCONE_HASH=1`` prints, without running it.

Implements ``docs/protocol.md``, section 2, as ``crates/runtime/src/manifest`` does.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from sconify.errors import UntrustedDataError
from sconify.program.launch import (
    DIGESTS_SECTION,
    INDEX_SECTION,
    MAX_HEAD,
    PACKS_SECTION,
    PAGE,
    SECTION,
    LaunchManifest,
    embedded_digest,
    runtime_digest,
    section_headers,
    section_name,
    with_variables,
)

_NAMES = (SECTION, INDEX_SECTION, DIGESTS_SECTION, PACKS_SECTION)
_SECTION_HEADER_SIZE = 64
_DIGEST_SIZE = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredBinary:
    """A sconified binary: what it says of itself, and what it is."""

    manifest: LaunchManifest
    """As it stands in the binary."""
    measurement: str
    """64 hex digits."""
    is_genuine: bool
    """Whether the digests in the manifest are those of the binary. If not, nobody's policy has the measurement."""
    index: bytes
    """The index of the embedded file system; empty if there is none."""
    digests: tuple[bytes, ...]
    """SHA-256 of each chunk of the embedded packs."""
    packs: range
    """Where the embedded packs stand in the file."""


def measure_binary(file: BinaryIO, *, environment: Mapping[str, str]) -> MeasuredBinary:
    """Measure a sconified binary as it would be when it runs.

    Args:
        file: The binary, seekable.
        environment: The environment of its start.

    Raises:
        UntrustedDataError: It is no sconified binary, or its manifest is not one that this version knows.
        UserError: A variable of the environment has no value that the runtime accepts.
    """
    head = _read_head(file)
    places = _places(head)
    manifest_place = places.get(SECTION)
    if manifest_place is None:
        raise UntrustedDataError("the executable has no launch manifest", remedy="name one that sconify_image made")
    manifest = LaunchManifest.parse(head[manifest_place.start : manifest_place.stop])
    runtime = runtime_digest(head[: manifest_place.start])
    document = with_variables(manifest, environment).document()
    document["runtime"] = _counted(manifest.runtime, runtime)
    is_genuine = runtime == manifest.runtime
    if len(places) not in (1, len(_NAMES)) or (manifest.file_system is None) is not (len(places) == 1):
        raise UntrustedDataError("the mode of the launch manifest and what is embedded do not go together")
    index, digests, packs = b"", b"", range(0)
    if manifest.file_system is not None:
        _check_order(places, len(head))
        index = head[places[INDEX_SECTION].start : places[INDEX_SECTION].stop]
        digests = head[places[DIGESTS_SECTION].start : places[DIGESTS_SECTION].stop]
        packs = places[PACKS_SECTION]
        digest = embedded_digest(manifest, head, manifest_place.stop)
        document["file_system"] = {
            **manifest.file_system.document(), "digest": _counted(manifest.file_system.digest, digest)
        }  # fmt: skip
        is_genuine = is_genuine and digest == manifest.file_system.digest
        if file.seek(0, 2) != packs.stop:
            raise UntrustedDataError("the executable does not end where its packs end")
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return MeasuredBinary(
        manifest=manifest,
        measurement=hashlib.sha256(canonical).hexdigest(),
        is_genuine=is_genuine,
        index=index,
        digests=tuple(digests[at : at + _DIGEST_SIZE] for at in range(0, len(digests), _DIGEST_SIZE)),
        packs=packs,
    )


def _read_head(file: BinaryIO) -> bytes:
    """Return everything up to the packs: up to the page that begins after the table of sections."""
    file.seek(0)
    header = file.read(_SECTION_HEADER_SIZE)
    if len(header) < _SECTION_HEADER_SIZE or header[:4] != b"\x7fELF":
        raise UntrustedDataError("the executable is no ELF file", remedy="name one that sconify_image made")
    (table,) = struct.unpack_from("<Q", header, 0x28)
    (count,) = struct.unpack_from("<H", header, 0x3C)
    end = -(-(table + count * _SECTION_HEADER_SIZE) // PAGE) * PAGE
    if end > MAX_HEAD:
        raise UntrustedDataError(f"the executable has {end} bytes before its packs, expected at most {MAX_HEAD}")
    return header + file.read(end - len(header))


def _places(head: bytes) -> dict[str, range]:
    headers, names_index = section_headers(head, "the executable")
    names_offset, names_size = headers[names_index][4:6]
    names = head[names_offset : names_offset + names_size]
    places: dict[str, range] = {}
    for header in headers:
        name = section_name(names, header).decode("ascii", "replace")
        if name not in _NAMES:
            continue
        if name in places:
            raise UntrustedDataError(f"the executable has more than one section {name}")
        place = range(header[4], header[4] + header[5])
        if name != PACKS_SECTION and place.stop > len(head):
            raise UntrustedDataError(f"the section {name} ends outside of the executable")
        places[name] = place
    return places


def _check_order(places: Mapping[str, range], end: int) -> None:
    manifest, index, digests, packs = (places[name] for name in _NAMES)
    if not (manifest.stop == index.start and index.stop == digests.start <= digests.stop <= packs.start == end):
        raise UntrustedDataError("the sections of the embedded file system are not where they belong")
    if len(digests) % _DIGEST_SIZE:
        raise UntrustedDataError("the digests have a part of one")


def _counted(stated: str, computed: str) -> str:
    """Return the digest that counts: the computed one, and the one that stands in the manifest if it is another."""
    return computed if stated == computed else f"{computed},{stated}"
