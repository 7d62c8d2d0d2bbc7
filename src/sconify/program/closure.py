"""The shared objects that a program needs, found in the image as its dynamic loader would find them."""

from __future__ import annotations

import posixpath
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from sconify.errors import UntrustedDataError, UserError
from sconify.image.model import Entry, EntryType
from sconify.program.binary import Program
from sconify.program.elf import IDENTITY_SIZE, Elf, identify, parse_elf
from sconify.program.search import LoadedObject, SearchRules, search_rules
from sconify.program.view import RootView, Trail, find

SHARED_OBJECT = re.compile(r"\.(?:so(?:\.[0-9]+)*|node)$")
"""Names of shared objects that a program may load while it runs; Node.js' end with ``.node``."""

MAX_PROBES = 200_000
"""Paths that are tried for one program. A desktop Python with all its modules takes two thousand, but search paths
and needed names multiply, so a few crafted files could ask for billions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """A file that the image must have so that the program can be loaded."""

    name: str
    """What was searched for."""
    trail: Trail
    """The links that lead to the file, those of directories included, and the file."""
    reason: str
    needed_by: str
    """Path of the object that asks for it."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Every path that has to be in the image for this: the links, then the file."""
        return (*(link.path for link in self.trail.links), self.trail.entry.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A shared object that is not in the image."""

    name: str
    needed_by: str
    searched: tuple[str, ...]
    """Directories, in the order of the search."""
    required: bool
    """True if the program can't start without it; else only one of its modules needs it."""

    def message(self) -> str:
        """Return one line that says what is missing, who needs it, and where it was searched for."""
        return f"{self.name}, needed by {self.needed_by}, is not in the image (searched: {':'.join(self.searched)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """What a program needs of other files to be loaded."""

    dependencies: tuple[Dependency, ...]
    """In the order in which they are found; each path once."""
    missing: tuple[Missing, ...]


def shared_objects(
    view: RootView,
    program: Program,
    *,
    environment: Mapping[str, str],
    working_dir: str,
    modules: Iterable[Entry] = (),
) -> Closure:
    """Find the loader and all shared objects of a program, and those of the modules that it may open.

    Args:
        view: The root file system.
        program: The program.
        environment: The image's environment: LD_LIBRARY_PATH and LD_PRELOAD count.
        working_dir: The image's working directory.
        modules: Shared objects that the program opens while it runs, such as extension modules of an interpreter.
            They are not part of the result, only what they need is. Files among them that are no shared objects for
            this architecture are passed over, as the loader would never open them.

    Returns:
        The dependencies; none for a static program.

    Raises:
        UserError: The program's dynamic loader is not in the image.
        UntrustedDataError: A loader's configuration file or the whole search is larger than any real one.
    """
    interpreter = program.elf.interpreter
    if interpreter is None:
        return Closure(dependencies=(), missing=())
    rules = search_rules(
        view, libc=program.libc, interpreter=interpreter, environment=environment, working_dir=working_dir
    )
    linker = _Linker(view, rules)
    linker.add_loader(program, interpreter)
    main = LoadedObject(path=program.path, elf=program.elf, loaded_by=None)
    preloaded = [name for name in re.split(r"[ :]", environment.get("LD_PRELOAD", "")) if name]
    loaded = linker.load_program(main, preloaded)
    for module in modules:
        linker.load_module(module, main, loaded)
    return linker.result()


class _Linker:
    def __init__(self, view: RootView, rules: SearchRules) -> None:
        self._view = view
        self._rules = rules
        self._dependencies: dict[str, Dependency] = {}
        self._missing: dict[tuple[str, str], Missing] = {}
        self._candidates: dict[str, tuple[Trail, Elf] | None] = {}
        self._probes = 0

    def result(self) -> Closure:
        return Closure(dependencies=tuple(self._dependencies.values()), missing=tuple(self._missing.values()))

    def add_loader(self, program: Program, interpreter: str) -> None:
        candidate = self._candidate(interpreter)
        if candidate is None:
            raise UserError(
                f"{program.path} is started by the dynamic loader {interpreter}, which is not in the image",
                remedy="add the C library of the program to the image, or give --binary=PATH with a static program",
            )
        self._add(interpreter, candidate[0], f"dynamic loader of {program.path}", program.path)
        for path in self._rules.files:
            trail = find(self._view, path)
            if trail is not None and trail.entry.type is EntryType.FILE:
                self._add(path, trail, "tells the dynamic loader where shared objects are", interpreter)

    def load_program(self, main: LoadedObject, preloaded: Iterable[str]) -> frozenset[str]:
        """Load the program, what is preloaded, and what the C library opens; return the names that are loaded then."""
        loaded: set[str] = set()
        queue = deque([main])
        for name in preloaded:
            queue += self._request(name, main, loaded, reason="preloaded by LD_PRELOAD", required=None)
        self._drain(queue, loaded, required=True)
        names = frozenset(loaded)
        for name, reason in self._rules.run_time_objects:
            self._drain(deque(self._request(name, main, loaded, reason=reason, required=None)), loaded, required=False)
        return names

    def load_module(self, module: Entry, main: LoadedObject, loaded: frozenset[str]) -> None:
        candidate = self._candidate(module.path)
        if candidate is not None:
            elf = candidate[1]
            names = set(loaded) | ({elf.soname} if elf.soname else set())
            self._drain(deque([LoadedObject(path=module.path, elf=elf, loaded_by=main)]), names, required=False)

    def _drain(self, queue: deque[LoadedObject], loaded: set[str], *, required: bool) -> None:
        """Load what the queued objects need, breadth first as loaders do: the first object of a name serves all."""
        while queue:
            requester = queue.popleft()
            for name in requester.elf.needed:
                reason = f"shared object needed by {requester.path}"
                queue += self._request(name, requester, loaded, reason=reason, required=required)

    def _request(
        self, name: str, requester: LoadedObject, loaded: set[str], *, reason: str, required: bool | None
    ) -> list[LoadedObject]:
        """Find what ``name`` stands for; more than one object if there are variants for other CPUs.

        ``required`` None means that loaders go on silently without it.
        """
        if name in loaded or self._rules.is_loader(name):
            return []
        searched: dict[str, None] = {}
        found = []
        for path in self._paths(name, requester, searched):
            self._probes += 1
            if self._probes > MAX_PROBES:
                raise UntrustedDataError(
                    f"{requester.path}: the search for shared objects takes over {MAX_PROBES} steps"
                )
            candidate = self._candidate(path)
            if candidate is None:
                continue
            trail, elf = candidate
            # A name that is not found stays open: the next object that needs it may have another search path.
            loaded.update({name, elf.soname or name})
            self._add(name, trail, reason, requester.path)
            found.append(LoadedObject(path=path, elf=elf, loaded_by=requester))
            if not self._is_variant(path):
                break
        else:
            if required is not None:
                self._missing.setdefault(
                    (name, requester.path),
                    Missing(name=name, needed_by=requester.path, searched=tuple(searched), required=required),
                )
        return found

    def _paths(self, name: str, requester: LoadedObject, searched: dict[str, None]) -> Iterator[str]:
        if "/" in name:
            for path in self._rules.path_of(name, requester):
                searched[posixpath.dirname(path)] = None
                yield path
            return
        for directory in self._rules.directories(requester):
            if directory in searched:
                continue
            searched[directory] = None
            for variant in self._rules.variants:
                yield f"{directory.rstrip('/')}/{variant}/{name}"
            yield f"{directory.rstrip('/')}/{name}"

    def _is_variant(self, path: str) -> bool:
        return any(posixpath.dirname(path).endswith(f"/{variant}") for variant in self._rules.variants)

    def _candidate(self, path: str) -> tuple[Trail, Elf] | None:
        """Return the object at ``path``; None if loaders would search on: nothing there, or not for this CPU."""
        if path not in self._candidates:
            self._candidates[path] = self._read(path)
        return self._candidates[path]

    def _read(self, path: str) -> tuple[Trail, Elf] | None:
        trail = find(self._view, path)
        if trail is None or trail.entry.type is not EntryType.FILE:
            return None
        with self._view.open(trail.entry) as stream:
            identity = identify(stream.read(IDENTITY_SIZE))
            if identity is None or not identity.runnable:
                return None
            try:
                return trail, parse_elf(stream, name=path)
            except UntrustedDataError:
                return None

    def _add(self, name: str, trail: Trail, reason: str, needed_by: str) -> None:
        self._dependencies.setdefault(
            trail.path, Dependency(name=name, trail=trail, reason=reason, needed_by=needed_by)
        )
