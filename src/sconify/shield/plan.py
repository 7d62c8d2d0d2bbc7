"""The plan of a conversion: which path of the native image goes where, and why. Nothing is written here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from sconify.errors import UserError
from sconify.image.model import Entry, EntryType
from sconify.image.rootfs import RootFileSystem
from sconify.program.closure import SHARED_OBJECT
from sconify.program.view import Trail, TrailError, find, trace
from sconify.shield.regions import Region, RegionKind, RegionMap, ancestors

MAX_LINK_WARNINGS = 20
"""Dangling links that are listed one by one; the rest is counted."""

WRITABLE_PATHS = {"/dev/shm": 0o1777, "/run": 0o755, "/tmp": 0o1777, "/var/tmp": 0o1777}  # noqa: S108 - paths of images
"""Directories that every program may expect to write to, and their modes where the image has none."""

ENGINE_MOUNTS = ("/dev/shm",)  # noqa: S108 - paths of images
"""Writable directories that the engine gives to each container, whatever the image has there."""

BASE_IMAGE = "base image"
"""The reason of what the base image has."""

KERNEL_PATHS = ("/dev", "/proc", "/sys")
"""File systems that the kernel gives to each container."""

ENGINE_FILES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
"""Files that the container engine writes at start."""


@dataclass(frozen=True, slots=True)
class PlannedEntry:
    """A path of the output, its protection and the reason for it."""

    entry: Entry
    kind: RegionKind
    reason: str


@dataclass(frozen=True)
class Plan:
    """What the output holds: every path, the regions, and what stays behind."""

    regions: tuple[Region, ...]
    entries: Mapping[str, PlannedEntry]
    """By path, sorted; directories above each path are there."""
    omitted: tuple[str, ...]
    """Paths of the native image that are in no region, sorted; directories are not counted."""
    warnings: tuple[str, ...]
    beside: Mapping[str, Entry] = field(default_factory=dict)
    """By path: what stands unprotected beside an embedded file system, and does not exist for the program."""
    omitted_size: int = 0
    """Bytes of the files that stay behind."""

    @property
    def content_size(self) -> int:
        """Bytes of all files in the plan."""
        return sum(planned.entry.size for planned in self.entries.values() if planned.entry.content is not None)


class BaseConflictError(UserError):
    """A path of the native image can't stand on the base image."""


class Planner:
    """Collects what the user chose and what the program needs, then makes the plan.

    What the user chose is declared first and becomes a region; what the program needs by itself joins the region that
    covers it, and is authenticated where there is none.
    """

    def __init__(self, root: RootFileSystem, *, embedded: bool = False) -> None:
        """Begin a plan.

        Args:
            root: The root file system of the native image.
            embedded: Whether the files go into the binary: then all of them are encrypted, and nothing is the host's
                but what the kernel gives and what the user allows.
        """
        self._root = root
        self._embedded = embedded
        self._needed = RegionKind.ENCRYPTED if embedded else RegionKind.AUTHENTICATED
        self._beside: dict[str, Entry] = {}
        self._regions = RegionMap()
        self._paths: dict[str, str] = {}
        self._added: dict[str, PlannedEntry] = {}
        self._attached: dict[str, dict[str, bytes]] = {}
        self._mount_points: dict[str, PlannedEntry] = {}
        self._warnings: list[str] = []
        for path in KERNEL_PATHS:
            self._regions.add(Region(path, RegionKind.HOST, "the kernel's"))
        for path in () if embedded else ENGINE_FILES:
            self._regions.add(Region(path, RegionKind.HOST, "written by the container engine"))

    def declare_directory(self, path: str, kind: RegionKind, *, flag: str) -> None:
        """Make a directory a region.

        Raises:
            UserError: If it is missing, no directory, or declared in two ways.
        """
        entry = self._find(path, flag)
        if entry.type is not EntryType.DIRECTORY:
            raise UserError(f"{flag}={path} is no directory in the native image", remedy=f"give {flag} a directory")
        self._declare(entry.path, kind, flag=flag, given=path)

    def declare_file(self, path: str, kind: RegionKind, *, flag: str) -> None:
        """Make one file a region.

        Raises:
            UserError: If it is missing, a directory, or declared in two ways.
        """
        entry = self._find(path, flag)
        if entry.type is EntryType.DIRECTORY:
            raise UserError(f"{flag}={path} is a directory in the native image", remedy="name a file of it")
        self._declare(entry.path, kind, flag=flag, given=path)

    def declare_beside(self, path: str, *, flag: str) -> None:
        """Put a file or directory beside the embedded file system, unprotected.

        Raises:
            UserError: If it is missing.
        """
        found = self._find(path, flag, noted=False)
        for entry in self._root.walk(found.path):
            self._beside[entry.path] = entry

    def declare_traced(self, paths: Iterable[str], *, reason: str) -> None:
        """Encrypt each file that a trace names; list its directories; pass over what the image does not have.

        Raises:
            UserError: If the image has none of the files.
        """
        found = False
        for path in paths:
            trail = find(self._root, path)
            if trail is None:
                continue
            place = self._regions.region_of(trail.entry.path)
            if place is not None and place.kind is RegionKind.HOST:
                continue
            self._note(trail, reason)
            if trail.entry.type is EntryType.FILE:
                self._regions.add(Region(trail.entry.path, RegionKind.ENCRYPTED, reason))
                found = True
        if not found:
            raise UserError(
                f"{reason} names no file of the native image",
                remedy="record it with `strace -f -e trace=file` in the native image, or list one path on each line",
            )

    def declare_host_path(self, path: str) -> None:
        """Let the host provide a path, unprotected. It need not exist in the native image."""
        if "*" in path:
            self._warnings.append(f"--host-path={path} has a wildcard, which stands for itself only")
        self._declare(path, RegionKind.HOST, flag="--host-path", given=path)

    def declare_volume(self, path: str, *, name: str) -> None:
        """Mount a volume. The directory need not exist in the native image; what the image has in it stays behind.

        Raises:
            UserError: If it is no directory, reached through a link, or declared in another way.
        """
        flag = f"--volume={name}"
        trail = find(self._root, path)
        if trail is None and self._root.lookup(path) is not None:
            raise UserError(f"{flag}:{path} is a dangling link in the native image", remedy="give a directory's path")
        entry = Entry(path=path, type=EntryType.DIRECTORY, mode=0o755) if trail is None else trail.entry
        if entry.type is not EntryType.DIRECTORY or entry.path != path:
            what = "no directory" if entry.type is not EntryType.DIRECTORY else f"a link to {entry.path}"
            raise UserError(f"{flag}:{path} is {what} in the native image", remedy="give the directory's own path")
        self._declare(path, RegionKind.VOLUME, flag=flag, given=path)
        self._mount_points[path] = PlannedEntry(entry, RegionKind.VOLUME, f"{flag}:{path}")
        if any(found.path != path for found in self._root.walk(path)):
            self._warnings.append(
                f"{flag}:{path} begins empty: what the native image has there is left out; "
                "have the program, or a first run, put it there"
            )

    def declare_writable(self, path: str, *, reason: str, mode: int = 0o755) -> str | None:
        """Make a directory ephemeral, unless the user has said what it shall be.

        Args:
            path: The directory; links are followed. It is made if the image does not have it.
            reason: Why the program may write there.
            mode: Permission bits of a directory that is made.

        Returns:
            The prefix of the ephemeral region, or None if there is none.
        """
        is_mounted = path in ENGINE_MOUNTS
        trail = None if is_mounted else find(self._root, path)
        if trail is None and not is_mounted and self._root.lookup(path) is not None:
            return None
        if trail is not None and trail.entry.type is not EntryType.DIRECTORY:
            return None
        prefix = path if trail is None else trail.entry.path
        region = Region(prefix, RegionKind.EPHEMERAL, reason)
        present = self._regions.add(region)
        if present is not None and present.kind is not RegionKind.EPHEMERAL:
            return None
        if trail is not None:
            self._note(trail, reason)
        else:
            entry = Entry(path=prefix, type=EntryType.DIRECTORY, mode=mode)
            self._mount_points[prefix] = PlannedEntry(entry, RegionKind.EPHEMERAL, reason)
        return prefix

    def need(self, trail: Trail, reason: str) -> None:
        """Take what the program needs: a file, or a directory with all below it, and each link on the way."""
        self._note(trail, reason)
        if trail.entry.type is EntryType.DIRECTORY and self._regions.region_of(trail.entry.path) is None:
            self._regions.add(Region(trail.entry.path, self._needed, reason))

    def need_alone(self, path: str, reason: str) -> bool:
        """Take a file, or a directory without what is below it; return whether the native image has it."""
        try:
            self._note(trace(self._root, path), reason)
        except TrailError:
            return False
        return True

    def add(self, entry: Entry, reason: str) -> None:
        """Add a link or a directory that the native image does not have."""
        self._added[entry.path] = PlannedEntry(entry, self._needed, reason)

    def all_shared_objects(self, reason: str) -> None:
        """Take every shared object of the native image, by name, and the links to them."""
        for entry in self._root.walk("/"):
            if SHARED_OBJECT.search(entry.path) and entry.type in (EntryType.FILE, EntryType.SYMLINK):
                self._paths.setdefault(entry.path, reason)

    def attach(self, path: str, name: str, value: bytes) -> None:
        """Give a path of the output an extended attribute, which only the index holds."""
        self._attached.setdefault(path, {})[name] = value

    def shared_objects(self) -> list[Entry]:
        """Return the shared objects, by name, and the executable files in what the user declared: they may be run."""
        regions = [region for region in self._regions if region.kind not in (RegionKind.HOST, RegionKind.VOLUME)]
        return [
            entry
            for region in regions
            for entry in self._root.walk(region.prefix)
            if entry.type is EntryType.FILE and (entry.mode & 0o111 or SHARED_OBJECT.search(entry.path))
        ]

    def warn(self, text: str) -> None:
        """Add a line to the warnings of the plan."""
        self._warnings.append(text)

    def plan(self, base: RootFileSystem | None = None) -> Plan:
        """Return the plan.

        Args:
            base: The root file system of the base image, whose every path becomes authenticated; None for none. It
                does not exist for a program with an embedded file system.

        Raises:
            BaseConflictError: If a chosen path can't stand on the base image.
        """
        entries: dict[str, PlannedEntry] = {}
        if base is not None and not self._embedded:
            for entry in base.walk("/"):
                entries[entry.path] = PlannedEntry(entry, RegionKind.AUTHENTICATED, BASE_IMAGE)
        for region in self._regions:
            self._check_not_covered(region)
            if region.kind is RegionKind.VOLUME:
                continue
            if region.kind is RegionKind.HOST:
                self._add_host_path(entries, region)
                continue
            for entry in self._root.walk(region.prefix):
                if self._regions.region_of(entry.path) is region:
                    self._add(entries, PlannedEntry(entry, region.kind, region.reason), chosen=True)
        self._add_needed(entries)
        entries.update(self._mount_points)
        for path, attributes in self._attached.items():
            planned = entries[path]
            entry = replace(planned.entry, xattrs={**planned.entry.xattrs, **attributes}, link_group=0)
            entries[path] = replace(planned, entry=entry)
        self._add_directories_above(entries)
        ordered = dict(sorted(entries.items(), key=lambda item: item[0].encode(errors="surrogateescape")))
        self._warn_of_dangling_links(ordered)
        self._warn_of_beside()
        omitted = self._omitted(ordered)
        return Plan(
            regions=tuple(self._regions),
            entries=ordered,
            omitted=tuple(entry.path for entry in omitted),
            omitted_size=sum(entry.size for entry in omitted if entry.content is not None),
            warnings=tuple(self._warnings),
            beside=self._beside,
        )

    def _add_needed(self, entries: dict[str, PlannedEntry]) -> None:
        """Add what the program needs by itself, where it stands."""
        for path, reason in self._paths.items():
            if (found := self._root.lookup(path)) is not None:
                region_of = self._regions.region_of(path)
                kind = self._needed if region_of is None else region_of.kind
                if region_of is not None and kind is RegionKind.VOLUME and found.type is EntryType.FILE:
                    raise UserError(
                        f"{path} ({reason}) would be covered by the volume at {region_of.prefix}, which begins empty",
                        remedy="give the volume another PATH",
                    )
                if kind not in (RegionKind.HOST, RegionKind.VOLUME):
                    self._add(entries, PlannedEntry(found, kind, reason), chosen=False)
        for path, added in self._added.items():
            region_of = self._regions.region_of(path)
            if region_of is None or region_of.kind is not RegionKind.VOLUME:
                entries.setdefault(path, added)

    def _check_not_covered(self, region: Region) -> None:
        """Refuse what the image would have within a volume: where the host mounts the volume, it is not seen."""
        for above in list(ancestors(region.prefix))[1:]:
            volume = self._regions.region_of(above)
            if volume is not None and volume.kind is RegionKind.VOLUME:
                raise UserError(
                    f"{region.prefix} ({region.reason}) lies within the volume at {volume.prefix}",
                    remedy="give the volume another PATH, or leave the other option out",
                )

    def _warn_of_beside(self) -> None:
        for path in self._beside:
            region = self._regions.region_of(path)
            if region is None:
                self._warnings.append(
                    f"{path} and what else --plain and --plain-file name do not exist for the program: give "
                    "--host-path to let it see them as the host has them, or --fs-dir or --fs-file to embed them"
                )
                return

    def _declare(self, prefix: str, kind: RegionKind, *, flag: str, given: str) -> None:
        present = self._regions.add(Region(prefix, kind, f"{flag}={given}"))
        if present is not None and present.kind is not kind:
            raise UserError(
                f"{prefix} would be both {present.kind.value} ({present.reason}) and {kind.value} ({flag}={given})",
                remedy="give one of the two",
            )

    def _find(self, path: str, flag: str, *, noted: bool = True) -> Entry:
        if not path.startswith("/"):
            raise UserError(f"{flag}={path} is not absolute", remedy=f"give {flag}=/{path}")
        try:
            trail = trace(self._root, path)
        except TrailError as error:
            raise UserError(f"{flag}={path}: {error.what}", remedy=f"correct {flag}") from None
        if noted:
            self._note(trail, f"{flag}={path}")
        return trail.entry

    def _note(self, trail: Trail, reason: str) -> None:
        for entry in (*trail.links, trail.entry):
            self._paths.setdefault(entry.path, reason)

    def _add(self, entries: dict[str, PlannedEntry], planned: PlannedEntry, *, chosen: bool) -> None:
        path = planned.entry.path
        present = entries.get(path)
        if present is not None:
            was, now = present.entry.type, planned.entry.type
            if was is not now and EntryType.DIRECTORY in (was, now):
                if not chosen and was is EntryType.DIRECTORY:
                    return
                raise BaseConflictError(
                    f"{path} is a {now.name.lower()} in the native image, but a {was.name.lower()} in the base image",
                    remedy="give another --base",
                )
            if present.reason != BASE_IMAGE:
                return
        entries[path] = planned

    def _add_host_path(self, entries: dict[str, PlannedEntry], region: Region) -> None:
        """List the mount point of a host path, so that its directory shows it. Its content is never ours."""
        entry = self._root.lookup(region.prefix)
        if entry is None and region.prefix in KERNEL_PATHS:
            entry = Entry(path=region.prefix, type=EntryType.DIRECTORY, mode=0o755)
        if entry is None and region.prefix in ENGINE_FILES:
            entry = Entry(path=region.prefix, type=EntryType.FILE, mode=0o644)
        if entry is not None and entry.type in (EntryType.DIRECTORY, EntryType.FILE):
            entries[region.prefix] = PlannedEntry(replace(entry, content=None, xattrs={}), region.kind, region.reason)

    def _add_directories_above(self, entries: dict[str, PlannedEntry]) -> None:
        # A host path that the native image lacks is not listed itself, but it stands somewhere.
        beneath = [region.prefix.rpartition("/")[0] or "/" for region in self._regions]
        for path in [*entries, *beneath]:
            for above in ancestors(path):
                if above in entries:
                    continue
                entry = self._root.lookup(above)
                if entry is None or entry.type is not EntryType.DIRECTORY:
                    entry = Entry(path=above, type=EntryType.DIRECTORY, mode=0o755)
                region = self._regions.region_of(above)
                kind = self._needed if region is None else region.kind
                entries[above] = PlannedEntry(entry, kind, "on the way to other paths")

    def _warn_of_dangling_links(self, entries: Mapping[str, PlannedEntry]) -> None:
        """Name the links that lead natively to something which is in no region."""
        dangling = []
        for path, planned in entries.items():
            if planned.entry.type is not EntryType.SYMLINK or planned.reason == BASE_IMAGE:
                continue
            trail = find(self._root, path)
            if trail is None or trail.entry.path in entries:
                continue
            region = self._regions.region_of(trail.entry.path)
            if region is None or region.kind not in (RegionKind.HOST, RegionKind.EPHEMERAL, RegionKind.VOLUME):
                dangling.append(f"{path} is a link to {trail.entry.path}, which is in no region")
        self._warnings.extend(dangling[:MAX_LINK_WARNINGS])
        if len(dangling) > MAX_LINK_WARNINGS:
            self._warnings.append(f"{len(dangling) - MAX_LINK_WARNINGS} more links lead to paths in no region")

    def _omitted(self, entries: Mapping[str, PlannedEntry]) -> list[Entry]:
        def left_out(entry: Entry) -> bool:
            if entry.type is EntryType.DIRECTORY or entry.path in entries:
                return False
            region = self._regions.region_of(entry.path)
            return region is None or region.kind not in (RegionKind.HOST, RegionKind.VOLUME)

        return [entry for entry in self._root.walk("/") if left_out(entry)]
