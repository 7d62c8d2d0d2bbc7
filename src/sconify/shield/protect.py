"""Builds the protected file system of a plan: a pack for each encrypted directory, one for files, and the index."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sconify import _shield
from sconify.errors import ServiceError, UntrustedDataError
from sconify.image.layer_around import room_around
from sconify.image.model import Entry, EntryType, Extent
from sconify.shield.plan import Plan, PlannedEntry
from sconify.shield.regions import Region, RegionKind, RegionMap

DIRECTORY = "/.sconify"
"""Where the protected file system stands in the output image."""

INDEX = f"{DIRECTORY}/index"
"""Path of the index in the output image."""


PACKS = "pack*"
"""Pattern of the files with packs in the working directory, also of those that are embedded."""

PACKED = (RegionKind.ENCRYPTED, RegionKind.EPHEMERAL)
"""Kinds of regions whose files are in a pack."""

REWRITTEN = ("/etc/group", "/etc/passwd")
"""Files to which some engines add the user that a container runs as: podman and CRI-O do.

They stand in the image for the engine's sake; the program gets them as they were converted, from a pack.
"""

_GAP = room_around(f"{DIRECTORY}/pack0", size=0)
"""Bytes before each pack, for the headers of the layer that it becomes."""

_SINGLE_FILES = f"{DIRECTORY}/files"
"""Name of the pack that holds the encrypted regions which are single files, and ``REWRITTEN``.

No region can have that prefix.
"""


@dataclass(frozen=True, slots=True)
class BuiltFile:
    """One file of the protected file system: its path in the image and where it was written here."""

    image_path: str
    file: Path
    gap: int = 0
    """Bytes at the start of ``file`` that are not its own but wait for the headers of a layer."""

    @property
    def content(self) -> Extent:
        """The file's own bytes."""
        return Extent(self.file, self.gap, self.file.stat().st_size - self.gap)

    @property
    def is_begun(self) -> bool:
        """Whether something of its own is in the file."""
        return self.file.exists() and self.file.stat().st_size > self.gap


@dataclass(frozen=True, slots=True)
class ProtectedFileSystem:
    """What ``protect`` made. ``tag`` is the root tag, 16 bytes: with the key, all that a policy must keep."""

    index: BuiltFile
    packs: tuple[BuiltFile, ...]
    tag: bytes

    @property
    def size(self) -> int:
        """Bytes of the index and the packs."""
        return sum(built.content.size for built in (self.index, *self.packs))


def protect(
    plan: Plan,
    *,
    key: bytes,
    key_is_fresh: bool,
    work: Path,
    progress: Callable[[int], None],
    complete: Callable[[BuiltFile], None] = lambda _: None,
) -> ProtectedFileSystem:
    """Encrypt and index what the plan says.

    Args:
        plan: The plan.
        key: The file system key, 32 bytes.
        key_is_fresh: Whether the key was made at random for this and encrypts nothing else, ever.
        work: A directory for the files.
        progress: Called with the number of content bytes done so far.
        complete: Called with each pack as soon as it is written, which may be before a failure.

    Raises:
        UntrustedDataError: If a layer changed or ended while it was read.
        ServiceError: If the disk is full or can't be read.
    """
    builder = _shield.Builder(key)
    if key_is_fresh:
        builder.key_is_fresh()
    packs: dict[str, int] = {}
    built: list[BuiltFile] = []
    for region in plan.regions:
        builder.add_region(os.fsencode(region.prefix), region.kind.value, region.reason)
    names = [_pack_of(plan, region) for region in plan.regions if _is_packed(plan, region)]
    if any(_is_rewritten(planned) for planned in plan.entries.values()):
        names.append(_SINGLE_FILES)
    for name in dict.fromkeys(names):
        pack = BuiltFile(f"{DIRECTORY}/pack{len(built)}", work / f"pack{len(built)}", gap=_GAP)
        built.append(pack)
        packs[name] = builder.add_pack(os.fsencode(name), os.fsencode(pack.image_path), str(pack.file))
    regions = RegionMap(plan.regions)

    def pack_of(planned: PlannedEntry) -> int | None:
        if _is_rewritten(planned):
            return packs[_SINGLE_FILES]
        place = regions.region_of(planned.entry.path)
        encrypted = planned.kind in PACKED and planned.entry.type is EntryType.FILE
        return packs[_pack_of(plan, place)] if encrypted and place is not None else None

    add_entries(builder, plan, pack_of)
    for path in plan.omitted:
        builder.add_omitted(os.fsencode(path))
    index = BuiltFile(INDEX, work / "index")
    pending = deque(built)

    def report(done: int) -> None:
        while len(pending) > 1 and pending[1].is_begun:
            complete(pending.popleft())
        progress(done)

    made = finish(builder, index.file, gap=_GAP, progress=report)
    for pack in pending:
        complete(pack)
    return ProtectedFileSystem(index=index, packs=tuple(built), tag=made.tag)


def add_entries(builder: _shield.Builder, plan: Plan, pack_of: Callable[[PlannedEntry], int | None]) -> None:
    """Give a builder all entries of a plan; ``pack_of`` says in which pack each file goes, if in any."""
    inodes: dict[tuple[int, int | None], int] = {}
    for number, planned in enumerate(plan.entries.values(), start=1):
        entry = planned.entry
        pack_number = pack_of(planned)
        # Links of one file are one inode as long as they are stored in the same place.
        inode = inodes.setdefault((entry.link_group, pack_number), number) if entry.link_group else number
        _add_entry(builder, entry, inode=inode, pack=pack_number)


def finish(builder: _shield.Builder, index: Path, *, gap: int, progress: Callable[[int], None]) -> _shield.Built:
    """Write the packs, each file of them behind a gap of so many bytes, and the index.

    Raises:
        UntrustedDataError: If a layer changed or ended while it was read.
        ServiceError: If the disk is full or can't be read.
    """
    try:
        return builder.finish(str(index), gap=gap, progress=progress)
    except OSError as error:
        raise ServiceError(
            f"the protected file system can't be written to {index.parent}: {error.strerror or error}",
            remedy="free some space, or let TMPDIR name a directory with more",
        ) from error
    except _shield.ShieldError as error:
        raise UntrustedDataError(f"the native image can't be protected: {error}") from error


def _is_rewritten(planned: PlannedEntry) -> bool:
    """Return whether an engine may have changed the file that stands in the image for this entry."""
    is_file = planned.entry.type is EntryType.FILE
    return is_file and planned.kind is RegionKind.AUTHENTICATED and planned.entry.path in REWRITTEN


def _is_packed(plan: Plan, region: Region) -> bool:
    """Return whether a region has a pack: an ephemeral one only if the image has files there."""
    if region.kind is not RegionKind.EPHEMERAL:
        return region.kind in PACKED
    regions = RegionMap(plan.regions)
    return any(
        planned.kind is RegionKind.EPHEMERAL
        and planned.entry.type is EntryType.FILE
        and regions.region_of(path) is region
        for path, planned in plan.entries.items()
    )


def _pack_of(plan: Plan, region: Region) -> str:
    """Return the name of the pack that holds a region's files."""
    top = plan.entries.get(region.prefix)
    return _SINGLE_FILES if top is not None and top.entry.type is EntryType.FILE else region.prefix


def _add_entry(builder: _shield.Builder, entry: Entry, *, inode: int, pack: int | None) -> None:
    extent = entry.content
    builder.add_entry(
        os.fsencode(entry.path),
        type=entry.type.value,
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=entry.mtime,
        mtime_nsec=entry.mtime_nsec,
        inode=inode,
        source=str(extent.source) if extent is not None and extent.size else None,
        offset=extent.offset if extent is not None else 0,
        size=extent.size if extent is not None else 0,
        pack=pack,
        target=os.fsencode(entry.target),
        device=entry.device,
        xattrs={os.fsencode(name): value for name, value in entry.xattrs.items()},
    )
