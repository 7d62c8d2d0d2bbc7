"""The root file system of an image as this package sees it, and the way through its symbolic links."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from sconify.errors import UserError
from sconify.image.model import Entry, EntryType

MAX_LINKS = 40
"""Symbolic links that one path may lead through: the kernel's limit (path_resolution(7))."""


class RootView(Protocol):
    """What this package reads of a root file system; none of it follows symbolic links."""

    def lookup(self, path: str) -> Entry | None:
        """Return the entry at the absolute, normal ``path`` whose parents are real directories, or None."""

    def children(self, path: str) -> list[str]:
        """Return the names of what is in the directory ``path``."""

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Yield the entry at ``prefix`` and everything below it."""

    def open(self, entry: Entry) -> BinaryIO:
        """Open the content of a file entry; the stream is seekable."""


class TrailError(UserError):
    """A path leads nowhere in the image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Where a path leads: every symbolic link on the way, those of directories included, in order, and the end."""

    path: str
    """The absolute path that was followed, ``.`` and empty components removed."""
    links: tuple[Entry, ...]
    entry: Entry
    """What stands at the end; never a symbolic link."""


def absolute(path: str, *, working_dir: str) -> str:
    """Return ``path`` as an absolute path with no empty and no ``.`` component; ``..`` stays, as links decide on it."""
    parts = [part for part in posixpath.join(working_dir or "/", path).split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)


def trace(view: RootView, path: str) -> Trail:
    """Follow ``path`` as the kernel does, and keep the symbolic links on the way.

    Args:
        view: The root file system.
        path: An absolute path.

    Returns:
        The links in the order in which they are met, and the entry at the end.

    Raises:
        TrailError: Something on the way does not exist, is no directory, or links go round in a circle.
    """
    wanted = absolute(path, working_dir="/")
    pending = wanted.split("/")[:0:-1]
    links: list[Entry] = []
    root = view.lookup("/") or Entry(path="/", type=EntryType.DIRECTORY, mode=0o755)
    here = root
    while pending:
        part = pending.pop()
        if part in ("", "."):
            continue
        if here.type is not EntryType.DIRECTORY:
            raise TrailError(f"{wanted}: {here.path} is not a directory")
        step = posixpath.dirname(here.path) if part == ".." else posixpath.join(here.path, part)
        entry = root if step == "/" else view.lookup(step)
        if entry is None:
            raise TrailError(
                f"{wanted} is not in the image"
                if not links
                else f"{wanted} is a broken link: {links[-1].path} -> {links[-1].target} leads to {step}, "
                "which is not in the image"
            )
        if entry.type is EntryType.SYMLINK:
            links.append(entry)
            if len(links) > MAX_LINKS:
                raise TrailError(f"{wanted}: more than {MAX_LINKS} symbolic links on the way, probably a circle")
            if entry.target.startswith("/"):
                here = root
            pending.extend(reversed(entry.target.split("/")))
        else:
            here = entry
    return Trail(path=wanted, links=tuple({link.path: link for link in links}.values()), entry=here)


def find(view: RootView, path: str) -> Trail | None:
    """Follow ``path`` as :func:`trace` does; None if it leads nowhere."""
    try:
        return trace(view, path)
    except TrailError:
        return None
