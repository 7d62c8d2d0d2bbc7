"""The merged root file system of an image: an index whose contents stay in the layers' archives."""

from __future__ import annotations

import dataclasses
import io
import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from sconify.errors import UntrustedDataError, UserError
from sconify.image.model import Entry, EntryType, Extent
from sconify.image.storage import reading
from sconify.image.tree import ROOT, Tree
from sconify.image.union import merge_layers

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MAX_LINKS = 40  # MAXSYMLINKS of Linux


class PathError(UserError):
    """A path that can't be resolved in a root file system."""


class PathNotFoundError(PathError):
    """Nothing is at the path."""


class NotADirectoryInImageError(PathError):
    """The path goes through something that is no directory."""


class SymlinkLoopError(PathError):
    """The path goes through more symbolic links than Linux follows."""


class RootFileSystem:
    """The entries of a root file system by path. Read-only once built."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._sorted: list[str] | None = None

    @classmethod
    def from_layers(cls, layers: Sequence[tuple[str, Extent]], *, workdir: Path) -> RootFileSystem:
        """Merge layers; ``sconify.image.union`` has the rules.

        Args:
            layers: The lowest first, for each its label for messages and its uncompressed tar archive.
            workdir: Where sparse files are written out. It and the archives must stay while contents are read.

        Raises:
            UntrustedDataError: A layer breaks the tar format or can't be a root file system's.
            ServiceError: ``workdir`` can't be written.
        """
        return cls(merge_layers(layers, workdir=workdir))

    def overlaid(self, entries: Iterable[Entry]) -> RootFileSystem:
        """Return a root file system with entries of another one on top, directories made where they are missing.

        What is no directory, but stands where a directory is needed, gives way.
        """
        tree = Tree()
        for path in self.paths():
            tree.put(self._tree.entries[path])
        for entry in sorted(entries, key=lambda entry: os.fsencode(entry.path)):
            if entry.path == "/":
                continue
            parts = entry.path.split("/")[1:-1]
            for length in range(1, len(parts) + 1):
                above = "/" + "/".join(parts[:length])
                if above not in tree.names:
                    tree.put(dataclasses.replace(ROOT, path=above))
            # Numbers of hard links are another image's.
            tree.put(dataclasses.replace(entry, link_group=0))
        return RootFileSystem(tree)

    def __len__(self) -> int:
        """Return the number of entries, the root included."""
        return len(self._tree.entries)

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at an absolute, normal path; no symbolic link is followed."""
        return self._tree.entries.get(path)

    def resolve(self, path: str, *, follow_last: bool = True) -> Entry:
        """Find an entry as the kernel would in a container: symbolic links are followed inside the root.

        Args:
            path: Absolute; may have ``.``, ``..``, links and repeated slashes.
            follow_last: Whether a link at the very end is followed too.

        Returns:
            The entry; its ``path`` is the real one.

        Raises:
            PathNotFoundError: Nothing is there.
            NotADirectoryInImageError: A component in the middle is no directory.
            SymlinkLoopError: More than 40 links are on the way.
            UserError: The path is not absolute.
        """
        if not path.startswith("/"):
            raise UserError(f"{path!r} is not an absolute path of the image", remedy="let it start with a slash")
        pending = [part for part in reversed(path.split("/")) if part not in {"", "."}]
        current = self._tree.entries["/"]
        links = 0
        while pending:
            part = pending.pop()
            if current.type is not EntryType.DIRECTORY:
                raise NotADirectoryInImageError(f"{path}: {current.path} is no directory in the image")
            if part == "..":
                current = self._tree.entries[current.path.rpartition("/")[0] or "/"]
                continue
            entry = self._tree.entries.get(f"{current.path.rstrip('/')}/{part}")
            if entry is None:
                where = f"{current.path.rstrip('/')}/{part}"
                detail = "" if where == path else f" ({where} does not exist)"
                raise PathNotFoundError(f"{path} does not exist in the image{detail}")
            if entry.type is EntryType.SYMLINK and (pending or follow_last):
                links += 1
                if links > _MAX_LINKS:
                    raise SymlinkLoopError(f"{path} goes through more than {_MAX_LINKS} symbolic links in the image")
                pending.extend(part for part in reversed(entry.target.split("/")) if part not in {"", "."})
                if entry.target.startswith("/"):
                    current = self._tree.entries["/"]
            else:
                current = entry
        return current

    def children(self, path: str) -> list[str]:
        """Return the names in a directory, sorted by their bytes; empty if the path is no directory."""
        return sorted(self._tree.names.get(path, ()), key=os.fsencode)

    def paths(self) -> Sequence[str]:
        """Return all paths, sorted by their bytes: the root comes first and each parent before its children."""
        if self._sorted is None:
            self._sorted = sorted(self._tree.entries, key=os.fsencode)
        return self._sorted

    def walk(self, prefix: str = "/") -> Iterator[Entry]:
        """Yield the entry at ``prefix`` and all below it, sorted by the bytes of their paths; nothing if there is none.

        No symbolic link is followed.
        """
        entry = self.lookup(prefix)
        if entry is None:
            return
        yield entry
        paths = self.paths()
        below = prefix.rstrip("/") + "/"
        for index in range(bisect_left(paths, os.fsencode(below), key=os.fsencode), len(paths)):
            if not paths[index].startswith(below):
                return
            if paths[index] != prefix:
                yield self._tree.entries[paths[index]]

    def read(self, entry: Entry, limit: int) -> bytes:
        """Return the whole content of a small file.

        Args:
            entry: A file of this root file system.
            limit: The most bytes to accept.

        Raises:
            UserError: It is no file, or larger than ``limit``.
            UntrustedDataError: Its archive became shorter.
        """
        content = _content(entry)
        if content.size > limit:
            raise UserError(f"{entry.path} has {content.size} bytes in the image, at most {limit} are expected")
        with self.open(entry) as file:
            data = file.read()
        if len(data) != content.size:
            raise UntrustedDataError(f"{content.source} became shorter while {entry.path} was read from it")
        return data

    def open(self, entry: Entry) -> BinaryIO:
        """Open a file's content for reading; seekable.

        Raises:
            UserError: It is no file, or its archive can't be opened.
        """
        content = _content(entry)
        with reading(content.source):
            return open_extent(content)


def _content(entry: Entry) -> Extent:
    if entry.content is None:
        raise UserError(f"{entry.path} is no regular file in the image")
    return entry.content


def open_extent(extent: Extent) -> BinaryIO:
    """Open a part of a file as if it were a file of its own.

    Raises:
        OSError: The file can't be opened.
    """
    return cast("BinaryIO", io.BufferedReader(_ExtentReader(extent), 128 * 1024))


class _ExtentReader(io.RawIOBase):
    def __init__(self, extent: Extent) -> None:
        self._extent = extent
        self._position = 0
        self._descriptor = os.open(extent.source, os.O_RDONLY | os.O_CLOEXEC)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._extent.size}[whence]
        if base + offset < 0:
            raise ValueError("negative seek position")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), max(self._extent.size - self._position, 0))
        count = os.preadv(self._descriptor, [view[:wanted]], self._extent.offset + self._position) if wanted else 0
        self._position += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
