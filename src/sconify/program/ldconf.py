"""``/etc/ld.so.conf``: the directories that ldconfig(8) puts into glibc's cache of shared objects."""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator

from sconify.errors import UntrustedDataError
from sconify.image.model import Entry, EntryType
from sconify.program.view import RootView, absolute, find

CONFIGURATION = "/etc/ld.so.conf"

MAX_FILES = 256
"""Configuration files, and patterns that include them: real systems have about ten files and one pattern."""
MAX_FILE_SIZE = 64 * 1024
"""Bytes of one configuration file: real ones have less than a kilobyte."""
MAX_MATCHES = 4096
"""Paths that one pattern may match, in whole or up to one of its slashes: real ones match some files."""


def system_directories(view: RootView) -> tuple[str, ...]:
    """Return the absolute directories of ``/etc/ld.so.conf`` and of the files it includes, in order.

    Args:
        view: The root file system.

    Returns:
        The directories, whether they exist or not; none if there is no such file.

    Raises:
        UntrustedDataError: A file is larger, or there are more of them, than any real system has.
    """
    return tuple(dict.fromkeys(_Reader(view).directories(CONFIGURATION)))


def read_text(view: RootView, entry: Entry) -> str:
    """Return the content of a small configuration file.

    Raises:
        UntrustedDataError: It is larger than ``MAX_FILE_SIZE``.
    """
    with view.open(entry) as stream:
        data = stream.read(MAX_FILE_SIZE + 1)
    if len(data) > MAX_FILE_SIZE:
        raise UntrustedDataError(
            f"{entry.path}: got more than {MAX_FILE_SIZE} bytes, too large for a configuration file"
        )
    return data.decode(errors="surrogateescape")


class _Reader:
    def __init__(self, view: RootView) -> None:
        self._view = view
        self._seen: set[str] = set()
        self._patterns = 0

    def directories(self, path: str) -> Iterator[str]:
        trail = find(self._view, path)
        if trail is None or trail.entry.type is not EntryType.FILE or trail.entry.path in self._seen:
            return
        self._seen.add(trail.entry.path)
        if len(self._seen) > MAX_FILES:
            raise UntrustedDataError(f"{CONFIGURATION}: includes more than {MAX_FILES} files")
        for raw in read_text(self._view, trail.entry).splitlines():
            line = raw.partition("#")[0].strip()
            words = line.split()
            if not words or words[0] == "hwcap":
                continue
            if words[0] == "include":
                self._patterns += len(words) - 1
                if self._patterns > MAX_FILES:
                    raise UntrustedDataError(f"{CONFIGURATION}: more than {MAX_FILES} includes")
                for pattern in words[1:]:
                    for included in expand_pattern(self._view, posixpath.join(posixpath.dirname(path), pattern)):
                        yield from self.directories(included)
            elif line.startswith("/"):
                # "=TYPE" marked libraries of libc4 and libc5; ldconfig still accepts it.
                yield absolute(line.partition("=")[0].rstrip(), working_dir="/")


def expand_pattern(view: RootView, pattern: str) -> list[str]:
    """Return the paths of the image that match a glob(7) pattern, sorted.

    Args:
        view: The root file system.
        pattern: An absolute pattern; ``*`` and ``?`` match no slash and no leading dot.

    Raises:
        UntrustedDataError: There are more than ``MAX_MATCHES``.
    """
    paths = ["/"]
    for part in absolute(pattern, working_dir="/").split("/")[1:]:
        if not set(part) & set("*?["):
            paths = [posixpath.join(path, part) for path in paths]
            continue
        matches = []
        for path in paths:
            trail = find(view, path)
            if trail is None or trail.entry.type is not EntryType.DIRECTORY:
                continue
            names = fnmatch.filter(view.children(trail.entry.path), part)
            matches += [posixpath.join(path, name) for name in names if part[0] == "." or name[0] != "."]
            if len(matches) > MAX_MATCHES:
                raise UntrustedDataError(
                    f"{CONFIGURATION}: the pattern {pattern} matches more than {MAX_MATCHES} paths"
                )
        paths = matches
    return sorted(path for path in paths if find(view, path) is not None)
