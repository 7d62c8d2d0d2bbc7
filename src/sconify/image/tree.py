"""A tree of entries while it is built: paths in a flat table, names by directory."""

from __future__ import annotations

from collections.abc import Iterator

from sconify.image.model import Entry, EntryType

ROOT = Entry(path="/", type=EntryType.DIRECTORY, mode=0o755)


class Tree:
    """Entries by path. A directory is in ``names`` as well, with the names in it."""

    __slots__ = ("entries", "names")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {"/": ROOT}
        self.names: dict[str, set[str]] = {"/": set()}

    def put(self, entry: Entry) -> None:
        """Add an entry or replace what is at its path; a directory over a directory keeps what is in it.

        The parent must be there.
        """
        path = entry.path
        if path in self.entries and not (entry.type is EntryType.DIRECTORY and path in self.names):
            self.remove(path)
        self.entries[path] = entry
        if entry.type is EntryType.DIRECTORY:
            self.names.setdefault(path, set())
        parent, _, name = path.rpartition("/")
        if name:
            self.names[parent or "/"].add(name)

    def remove(self, path: str) -> None:
        """Remove what is at a path, if anything, and all below it."""
        if path not in self.entries:
            return
        self.clear(path)
        self.names.pop(path, None)
        del self.entries[path]
        parent, _, name = path.rpartition("/")
        self.names[parent or "/"].discard(name)

    def clear(self, path: str) -> None:
        """Remove all below a directory; nothing if it is none."""
        below = list(self._below(path))
        for descendant in below:
            del self.entries[descendant]
            self.names.pop(descendant, None)
        if path in self.names:
            self.names[path].clear()

    def _below(self, path: str) -> Iterator[str]:
        pending = [path]
        while pending:
            directory = pending.pop()
            prefix = directory.rstrip("/")
            for name in self.names.get(directory, ()):
                child = f"{prefix}/{name}"
                yield child
                pending.append(child)
