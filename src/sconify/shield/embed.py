"""Builds the file system that is embedded in the sconified binary: one encrypted region with everything in it.

Its files are in many packs, so that a changed file leaves most of them as they were: where a pack begins depends on the
path and the size of single files only.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sconify import _shield
from sconify.image.model import Entry, EntryType
from sconify.program.launch import PACKS_SECTION, EmbeddedFiles
from sconify.shield.cache import CompressionCache
from sconify.shield.plan import Plan, PlannedEntry
from sconify.shield.protect import PACKED, add_entries, finish
from sconify.shield.regions import Region, RegionKind

EMBEDDED = Region("/", RegionKind.ENCRYPTED, "--binary-fs")
"""The region that the embedded file system is: what it does not list does not exist. It is read-only; only what is in
ephemeral regions of the plan can be changed, until the program's end."""

PUBLIC_KEY = bytes(32)
"""The file system key of ``--binary-fs-plain``: no secret, it stands in the launch manifest."""

LARGE_FILE = 4 << 20
"""Bytes from which on a file has a pack of its own."""

FILES_IN_A_PACK = 64
"""How many files share a pack, on average."""


@dataclass(frozen=True, slots=True)
class EmbeddedFileSystem:
    """What ``embed`` made: what goes into the binary, the packs in a file, and the root tag, 16 bytes."""

    files: EmbeddedFiles
    packs: Path
    tag: bytes


def embed(
    plan: Plan,
    *,
    key: bytes,
    program: str,
    work: Path,
    cache: CompressionCache | None,
    progress: Callable[[int], None],
) -> EmbeddedFileSystem:
    """Encrypt and index what the plan says.

    Args:
        plan: The plan, all of whose files are encrypted.
        key: The file system key, 32 bytes; ``PUBLIC_KEY`` for files that everybody may read.
        program: Path of the binary that they are embedded in, for messages.
        work: A directory for the packs.
        cache: Remembers how contents compress.
        progress: Called with the number of content bytes done so far.

    Raises:
        UntrustedDataError: If a layer changed or ended while it was read.
        ServiceError: If the disk is full or can't be read.
    """
    builder = _shield.Builder(key)
    builder.digest_chunks()
    if cache is not None:
        builder.use_cache(str(cache.directory), cache.key)
    others = [region for region in plan.regions if region.kind is not RegionKind.ENCRYPTED]
    for region in (EMBEDDED, *others):
        builder.add_region(os.fsencode(region.prefix), region.kind.value, region.reason)
    packs = work / "packs"
    add_entries(builder, plan, _Packer(builder, program, packs).pack_of)
    index = work / "index"
    made = finish(builder, index, progress=progress)
    files = EmbeddedFiles(
        index=index.read_bytes(),
        digests=made.digests,
        packs_size=packs.stat().st_size,
        commitment=_shield.key_commitment(key).hex(),
        key=key.hex() if key == PUBLIC_KEY else None,
    )
    return EmbeddedFileSystem(files=files, packs=packs, tag=made.tag)


class _Packer:
    """Distributes the files of a plan, in its order, over packs that all go into one file."""

    def __init__(self, builder: _shield.Builder, program: str, output: Path) -> None:
        self._builder = builder
        self._program = program
        self._output = str(output)
        self._current: int | None = None
        self._count = 0
        self._links: dict[int, int] = {}

    def pack_of(self, planned: PlannedEntry) -> int | None:
        entry = planned.entry
        if planned.kind not in PACKED or entry.type is not EntryType.FILE:
            return None
        if entry.link_group in self._links:
            return self._links[entry.link_group]
        is_large = entry.size >= LARGE_FILE
        if self._current is None or is_large or zlib.crc32(os.fsencode(entry.path)) % FILES_IN_A_PACK == 0:
            self._current = self._begin(entry)
        pack = self._current
        if is_large:
            self._current = None
        if entry.link_group:
            self._links[entry.link_group] = pack
        return pack

    def _begin(self, first: Entry) -> int:
        file = f"{self._program}/{PACKS_SECTION}/{self._count}"
        self._count += 1
        return self._builder.add_pack(os.fsencode(first.path), os.fsencode(file), self._output)
