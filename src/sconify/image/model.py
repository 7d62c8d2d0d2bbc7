"""The entries of an image's root file system, whose bytes stay where they are on this machine."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

NO_XATTRS: Mapping[str, bytes] = MappingProxyType({})
"""What the many entries without extended attributes share."""


class EntryType(enum.Enum):
    """The type of a path, named by the letter that ``ls -l`` shows."""

    FILE = "-"
    DIRECTORY = "d"
    SYMLINK = "l"
    CHARACTER = "c"
    BLOCK = "b"
    FIFO = "p"


@dataclass(frozen=True, slots=True)
class Extent:
    """``size`` bytes at ``offset`` of the uncompressed file ``source`` on this machine."""

    source: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path of a root file system. ``path`` is absolute and normal; ``/`` is the root."""

    path: str
    type: EntryType
    mode: int
    """Permission bits with set-id and sticky, 0..0o7777."""
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    """Seconds since 1970."""
    mtime_nsec: int = 0
    content: Extent | None = None
    """Present exactly for files; an empty file has an extent of size 0."""
    target: str = ""
    """Of a symlink."""
    device: tuple[int, int] = (0, 0)
    """Major and minor of a device node."""
    xattrs: Mapping[str, bytes] = field(default_factory=lambda: NO_XATTRS)
    link_group: int = 0
    """Non-zero: entries with the same number are hard links of one another, and equal in all but their path."""

    @property
    def size(self) -> int:
        """Length in bytes as ``stat`` shows it."""
        if self.content is not None:
            return self.content.size
        return len(self.target.encode(errors="surrogateescape"))
