"""The machine's own file system as the root file system of an image."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from sconify.image.model import Entry, EntryType, Extent

_TYPES = {
    stat.S_IFREG: EntryType.FILE,
    stat.S_IFDIR: EntryType.DIRECTORY,
    stat.S_IFLNK: EntryType.SYMLINK,
    stat.S_IFCHR: EntryType.CHARACTER,
    stat.S_IFBLK: EntryType.BLOCK,
    stat.S_IFIFO: EntryType.FIFO,
}


class LiveView:
    """Reads a directory of this machine as if it were the root of an image."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _real(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def lookup(self, path: str) -> Entry | None:
        real = self._real(path)
        try:
            status = real.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        kind = _TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return None
        return Entry(
            path=path,
            type=kind,
            mode=stat.S_IMODE(status.st_mode),
            content=Extent(real, 0, status.st_size) if kind is EntryType.FILE else None,
            target=str(real.readlink()) if kind is EntryType.SYMLINK else "",
            link_group=status.st_ino if kind is EntryType.FILE and status.st_nlink > 1 else 0,
        )

    def children(self, path: str) -> list[str]:
        return sorted(os.listdir(self._real(path)))  # noqa: PTH208 - names are wanted

    def walk(self, prefix: str) -> Iterator[Entry]:
        entry = self.lookup(prefix)
        if entry is None:
            return
        yield entry
        if entry.type is EntryType.DIRECTORY:
            for name in self.children(prefix):
                yield from self.walk(f"{prefix.rstrip('/')}/{name}")

    def open(self, entry: Entry) -> BinaryIO:
        return self._real(entry.path).open("rb")


@pytest.fixture
def make_view() -> Callable[[Path], LiveView]:
    return LiveView


@pytest.fixture
def machine() -> LiveView:
    return LiveView(Path("/"))
