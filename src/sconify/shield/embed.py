"""Builds the file system that is embedded in the sconified binary: one encrypted region with everything in it.

Its files are in many packs, so that a changed file leaves most of them as they were: where a pack begins depends on the
path and the size of single files only.
"""

from __future__ import annotations

import dataclasses
import os
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sconify import _shield
from sconify.errors import UserError
from sconify.image.layer_around import room_around
from sconify.image.model import Entry, EntryType, Extent
from sconify.program.launch import PACKS_SECTION, EmbeddedFiles, EmbeddedRoot, LaunchManifest, packs_offset
from sconify.shield.cache import CompressionCache
from sconify.shield.plan import Plan, PlannedEntry
from sconify.shield.protect import PACKED, add_entries, finish
from sconify.shield.regions import Region, RegionKind, RegionMap, ancestors

EMBEDDED = Region("/", RegionKind.EPHEMERAL, "--binary-fs")
"""The region that the embedded file system is: what it does not list does not exist. It begins with what is embedded;
the program may change all of it, until its end."""

PUBLIC_KEY = bytes(32)
"""The file system key of ``--binary-fs-plain``: no secret, it stands in the launch manifest."""

LARGE_FILE = 4 << 20
"""Bytes from which on a file has a pack of its own."""

FILES_IN_A_PACK = 64
"""How many files share a pack, on average."""


MAX_CONTENT = 16 << 30
"""Bytes of content that a binary may have embedded; registries refuse layers of 10 GB and more."""


@dataclass(frozen=True, slots=True)
class EmbeddedFileSystem:
    """What ``embed`` made: what goes into the binary, the packs at the end of a file, and the root tag, 16 bytes.

    Before the packs there is a hole for what comes before them in the layer: its headers and the binary's beginning.
    """

    files: EmbeddedFiles
    packs: Extent
    tag: bytes


def check_embeddable(plan: Plan, program: str, *, volumes: Iterable[str]) -> None:
    """Refuse a plan whose files can't be embedded, before anything is built.

    Args:
        plan: The plan.
        program: Path of the binary.
        volumes: Paths at which volumes are mounted.

    Raises:
        UserError: It is too much; the binary would be the host's; or something is embedded where a volume hides it.
    """
    if plan.content_size > MAX_CONTENT:
        raise UserError(
            f"the embedded file system would have {plan.content_size} bytes, expected at most {MAX_CONTENT}",
            remedy="embed less with --fs-dir, or give --disable-binary-fs-defaults, or leave --binary-fs out",
        )
    if plan.entries[program].kind is not RegionKind.ENCRYPTED:
        raise UserError(
            f"the binary {program} would be the host's: --host-path covers it", remedy="give another --host-path"
        )
    mounted = frozenset(volumes)
    for region in plan.regions:
        hidden = next((above for above in ancestors(region.prefix) if above in mounted), None)
        if hidden is not None and region.kind is RegionKind.ENCRYPTED:
            raise UserError(
                f"{region.reason} would be hidden by the volume at {hidden}",
                remedy=f"leave {region.reason} out, or give the volume another path",
            )


def embed(
    plan: Plan,
    *,
    key: bytes,
    key_is_fresh: bool,
    runtime: Path,
    manifest: LaunchManifest,
    work: Path,
    cache: CompressionCache | None,
    progress: Callable[[int], None],
) -> EmbeddedFileSystem:
    """Encrypt and index what the plan says.

    Args:
        plan: The plan, all of whose files are encrypted.
        key: The file system key, 32 bytes; ``PUBLIC_KEY`` for files that everybody may read.
        key_is_fresh: Whether the key was made at random for this and encrypts nothing else, ever.
        runtime: The runtime's file.
        manifest: Of the binary that they are embedded in, as yet without them.
        work: A directory for the packs.
        cache: Remembers how contents compress.
        progress: Called with the number of content bytes done so far.

    Raises:
        UntrustedDataError: If a layer changed or ended while it was read.
        ServiceError: If the disk is full or can't be read.
    """
    builder = _shield.Builder(key)
    if key_is_fresh:
        builder.key_is_fresh()
    builder.digest_chunks()
    if cache is not None:
        builder.use_cache(str(cache.directory), cache.key)
    for region in (EMBEDDED, *_other_regions(plan)):
        builder.add_region(os.fsencode(region.prefix), region.kind.value, region.reason)
    output = work / "packs"
    add_entries(builder, plan, _Packer(builder, manifest.program, output).pack_of)
    root = EmbeddedRoot(commitment=_shield.key_commitment(key).hex(), key=key.hex() if key == PUBLIC_KEY else None)
    index_size, digests_size = builder.bounds()
    offset = packs_offset(
        runtime, dataclasses.replace(manifest, file_system=root), index_size=index_size, digests_size=digests_size
    )
    gap = room_around(manifest.program, size=offset + plan.content_size) + offset
    index = work / "index"
    made = finish(builder, index, gap=gap, progress=progress)
    packs = Extent(output, gap, output.stat().st_size - gap)
    files = EmbeddedFiles(
        index=index.read_bytes(),
        digests=made.digests,
        packs_offset=offset,
        packs_size=packs.size,
        commitment=root.commitment,
        key=root.key,
    )
    return EmbeddedFileSystem(files=files, packs=packs, tag=made.tag)


def _other_regions(plan: Plan) -> list[Region]:
    """Return the regions in which something else holds than in the embedded file system."""
    outside = RegionMap(region for region in plan.regions if region.kind not in PACKED)

    def is_other(region: Region) -> bool:
        return region.kind not in PACKED or outside.region_of(region.prefix) is not None

    return [region for region in plan.regions if is_other(region)]


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
