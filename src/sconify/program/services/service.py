"""What every service answers: is this program its interpreter, and which files does that need."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from sconify.image.model import Entry, EntryType
from sconify.program.binary import Program
from sconify.program.closure import SHARED_OBJECT
from sconify.program.view import RootView, Trail, find


@dataclass(frozen=True, slots=True, kw_only=True)
class Inclusion:
    """A file, or a directory with everything below it, that the image must have."""

    trail: Trail
    """The links that lead there, and the file or directory."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLibraries:
    """What an interpreter needs besides its shared objects."""

    inclusions: tuple[Inclusion, ...]
    modules: tuple[Entry, ...]
    """Shared objects below the inclusions that the interpreter may open; what they need is for ``shared_objects``."""
    links: tuple[Entry, ...]
    """Symbolic links that the image does not have, but by which the service's users call the interpreter."""


class Service(Protocol):
    """One kind of interpreter."""

    @property
    def name(self) -> str:
        """What people call it."""

    @property
    def description(self) -> str:
        """What is taken along, in one line, for ``--help``."""

    def recognises(self, view: RootView, program: Program) -> bool:
        """True if ``program`` is of this kind, by its name or by what it holds."""

    def libraries(self, view: RootView, program: Program, *, environment: Mapping[str, str]) -> ServiceLibraries:
        """Find what the interpreter needs, by the files that exist.

        Args:
            view: The root file system.
            program: A program that :meth:`recognises` accepts.
            environment: The image's environment.
        """


def names_of(program: Program) -> list[str]:
    """Return every path by which the program was asked for, its own included."""
    return [program.path, program.trail.path, *(link.path for link in program.trail.links)]


def collect(view: RootView, wanted: Iterable[tuple[str, str]], *, links: tuple[Entry, ...] = ()) -> ServiceLibraries:
    """Build the libraries of a service from the paths that it would use.

    Where a symbolic link below a directory leads out of it, what it leads to is included too.

    Args:
        view: The root file system.
        wanted: Pairs of an absolute path and a reason; paths that do not exist are passed over, and so is what lies
            in a directory that came before.
        links: Symbolic links to add.
    """
    inclusions: dict[str, Inclusion] = {}
    modules: dict[str, Entry] = {}
    trees: set[str] = set()
    above: set[str] = set()
    pending = list(wanted)[::-1]
    while pending:
        path, reason = pending.pop()
        trail = find(view, path)
        if trail is None or path in inclusions:
            continue
        top = trail.entry.path
        if not trees.isdisjoint(_upwards(top)):
            if trail.links and trees.isdisjoint(_upwards(path)):
                inclusions[path] = Inclusion(trail=trail, reason=reason)
            continue
        if top in above:
            continue  # A link to a directory above: what the service needs of it is there already.
        inclusions[path] = Inclusion(trail=trail, reason=reason)
        trees.add(top)
        above.update(_upwards(top))
        for entry in view.walk(top):
            if entry.type is EntryType.FILE and SHARED_OBJECT.search(entry.path):
                modules[entry.path] = entry
            elif entry.type is EntryType.SYMLINK:
                pending.append((entry.path, f"a link in {top} leads there"))
    return ServiceLibraries(inclusions=tuple(inclusions.values()), modules=tuple(modules.values()), links=links)


def _upwards(path: str) -> Iterator[str]:
    """Yield a normal absolute path, its directory, and so on up to the root."""
    yield path
    while path != "/":
        path = posixpath.dirname(path)
        yield path
