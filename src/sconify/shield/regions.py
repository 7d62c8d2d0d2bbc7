"""Regions: which protection a path has. The longest prefix wins; a path under no region is undeclared."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class RegionKind(enum.Enum):
    """How the paths of a region are protected. The values are the names that the index and the documentation use."""

    ENCRYPTED = "encrypted"
    """Content in a pack: confidential, authenticated, read-only."""
    AUTHENTICATED = "authenticated"
    """A plain file whose hash is in the index: authenticated, read-only."""
    EPHEMERAL = "ephemeral"
    """Writable, in memory, gone at exit; it begins with what the image has there, which is in a pack."""
    VOLUME = "volume"
    """Writable and durable, encrypted in a store that the host keeps at the same path."""
    HOST = "host"
    """As the host gives it: not protected."""


@dataclass(frozen=True, slots=True)
class Region:
    """One path prefix with its protection, and why it has it."""

    prefix: str
    kind: RegionKind
    reason: str


def ancestors(path: str) -> Iterator[str]:
    """Yield ``path`` itself and then each directory above it, the root last."""
    while path != "/":
        yield path
        path = path.rpartition("/")[0] or "/"
    yield "/"


class RegionMap:
    """All regions of an image, at most one for each prefix."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        self._regions: dict[str, Region] = {region.prefix: region for region in regions}

    def __iter__(self) -> Iterator[Region]:
        """Yield the regions sorted by prefix."""
        return iter(sorted(self._regions.values(), key=lambda region: region.prefix))

    def add(self, region: Region) -> Region | None:
        """Add a region unless its prefix is taken; return the region that has the prefix already."""
        present = self._regions.get(region.prefix)
        if present is None:
            self._regions[region.prefix] = region
        return present

    def region_of(self, path: str) -> Region | None:
        """Return the region with the longest prefix of ``path``, or None when the path is undeclared."""
        for prefix in ancestors(path):
            if (region := self._regions.get(prefix)) is not None:
                return region
        return None
