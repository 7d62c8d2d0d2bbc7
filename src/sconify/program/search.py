"""Where the dynamic loaders of glibc and musl look for a shared object, in their order.

Sources: ld.so(8) and ldconfig(8) for glibc, with ``_dl_map_object`` of its elf/dl-load.c for what they leave open;
``load_library`` of ldso/dynlink.c for musl.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sconify.image.model import EntryType
from sconify.program.elf import Elf, Libc
from sconify.program.ldconf import read_text, system_directories
from sconify.program.view import RootView, absolute, find

HWCAPS = ("glibc-hwcaps/x86-64-v4", "glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2")
"""Subdirectories that glibc searches first if the CPU has the features; which CPU will run the image is not known."""

GLIBC_DIRECTORIES = ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64", "/usr/lib64", "/lib", "/usr/lib")
"""Built into the loader; which of them, depends on who built it."""

MUSL_DIRECTORIES = ("/lib", "/usr/local/lib", "/usr/lib")

_TOKEN = re.compile(r"\$(?:(ORIGIN|LIB|PLATFORM)(?![A-Za-z0-9_])|\{(ORIGIN|LIB|PLATFORM)\})")
_LIB = ("lib/x86_64-linux-gnu", "lib64", "lib")
"""Values of ``$LIB``; which one holds depends on who built the loader."""
_PLATFORM = ("x86_64", "haswell")
"""Values of ``$PLATFORM``; which one holds depends on the CPU."""

_MUSL_RESERVED = ("c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedObject:
    """A program or shared object that asks for others."""

    path: str
    """As the loader found it: its directory is ``$ORIGIN``."""
    elf: Elf
    loaded_by: LoadedObject | None
    """Which object asked for it first; None for the program."""

    def chain(self) -> Iterator[LoadedObject]:
        """Yield the object, the one that asked for it, and so on up to the program."""
        link: LoadedObject | None = self
        while link is not None:
            yield link
            link = link.loaded_by


class SearchRules(Protocol):
    """How one dynamic loader searches."""

    variants: Sequence[str]
    """Subdirectories of each directory that may hold a better build of the same object."""
    run_time_objects: Sequence[tuple[str, str]]
    """Names of shared objects that the C library itself opens while a program runs, and what for."""
    files: Sequence[str]
    """Paths of files that the loader reads to know where to search."""

    def is_loader(self, name: str) -> bool:
        """True if ``name`` stands for the loader itself, which is in memory already."""

    def directories(self, requester: LoadedObject) -> Iterator[str]:
        """Yield the absolute directories that are searched for a name that ``requester`` needs."""

    def path_of(self, name: str, requester: LoadedObject) -> list[str]:
        """Return the absolute paths that a needed name with a slash in it may stand for."""


def search_rules(
    view: RootView, *, libc: Libc, interpreter: str, environment: Mapping[str, str], working_dir: str
) -> SearchRules:
    """Return the rules of the loader ``interpreter`` of a program in the image.

    Args:
        view: The root file system, for the loader's configuration.
        libc: ``Libc.GLIBC`` or ``Libc.MUSL``.
        interpreter: Path of the loader as the program names it.
        environment: The image's environment: LD_LIBRARY_PATH counts.
        working_dir: The image's working directory, for relative directories.
    """
    rules = MuslRules if libc is Libc.MUSL else GlibcRules
    return rules(view, interpreter=interpreter, environment=environment, working_dir=working_dir)


class GlibcRules:
    """glibc's order.

    RPATH of the requester and of those that asked for it, LD_LIBRARY_PATH, RUNPATH, ld.so.conf, built-in directories.
    """

    variants: Sequence[str] = HWCAPS
    run_time_objects: Sequence[tuple[str, str]] = (
        ("libnss_files.so.2", "opened by glibc to read users, groups and hosts from files"),
        ("libnss_dns.so.2", "opened by glibc to resolve host names"),
        ("libresolv.so.2", "opened by glibc to resolve host names"),
        ("libgcc_s.so.1", "opened by glibc to end or unwind threads"),
    )
    files: Sequence[str] = ("/etc/ld.so.cache",)

    def __init__(self, view: RootView, *, interpreter: str, environment: Mapping[str, str], working_dir: str) -> None:
        self._working_dir = working_dir
        self._loader = posixpath.basename(interpreter)
        self._library_path = _split(environment.get("LD_LIBRARY_PATH", ""), ":;")
        self._configured = system_directories(view)
        loader = find(view, interpreter)
        own = () if loader is None else (posixpath.dirname(loader.entry.path),)
        self._built_in = tuple(dict.fromkeys((*GLIBC_DIRECTORIES, *own)))

    def is_loader(self, name: str) -> bool:
        """Every glibc object needs the loader by its file name."""
        return name == self._loader

    def directories(self, requester: LoadedObject) -> Iterator[str]:
        """``LD_LIBRARY_PATH`` may use tokens too: they are the program's."""
        program = list(requester.chain())[-1]
        if not requester.elf.runpath:
            for link in requester.chain():
                yield from self._expand(link.elf.rpath, link)
        yield from self._expand(self._library_path, program)
        yield from self._expand(requester.elf.runpath, requester)
        yield from self._configured
        if not requester.elf.no_default_dirs:
            yield from self._built_in

    def path_of(self, name: str, requester: LoadedObject) -> list[str]:
        """Tokens are expanded."""
        return list(self._expand((name,), requester))

    def _expand(self, parts: Sequence[str], origin: LoadedObject) -> Iterator[str]:
        directory = posixpath.dirname(origin.path)
        for part in parts:
            paths = dict.fromkeys(
                _substitute(part, {"ORIGIN": directory, "LIB": lib, "PLATFORM": platform})
                for lib, platform in itertools.product(_LIB, _PLATFORM)
            )
            for path in paths:
                yield absolute(path, working_dir=self._working_dir)


class MuslRules:
    """musl's order.

    LD_LIBRARY_PATH, RPATH or RUNPATH of the requester and of those that asked for it, the path file or the defaults.
    """

    variants: Sequence[str] = ()
    run_time_objects: Sequence[tuple[str, str]] = ()

    def __init__(self, view: RootView, *, interpreter: str, environment: Mapping[str, str], working_dir: str) -> None:
        self._working_dir = working_dir
        self._loader = posixpath.basename(interpreter)
        self._library_path = _split(environment.get("LD_LIBRARY_PATH", ""), ":\n")
        prefix = posixpath.dirname(posixpath.dirname(interpreter)).rstrip("/")
        path_file = f"{prefix}/etc/ld-musl-x86_64.path"
        self.files: Sequence[str] = (path_file,)
        trail = find(view, path_file)
        self._system: Sequence[str] = MUSL_DIRECTORIES
        if trail is not None and trail.entry.type is EntryType.FILE:
            self._system = _split(read_text(view, trail.entry), ":\n")

    def is_loader(self, name: str) -> bool:
        """The loader is the C library, under all the names that its parts have elsewhere."""
        return name == self._loader or (name.startswith("lib") and name[3:].startswith(_MUSL_RESERVED))

    def directories(self, requester: LoadedObject) -> Iterator[str]:
        """RUNPATH is inherited like RPATH."""
        yield from (absolute(part, working_dir=self._working_dir) for part in self._library_path)
        for link in requester.chain():
            yield from self._expand(link.elf.runpath or link.elf.rpath, link)
        yield from (absolute(part, working_dir=self._working_dir) for part in self._system)

    def path_of(self, name: str, requester: LoadedObject) -> list[str]:  # noqa: ARG002
        """No tokens are expanded."""
        return [absolute(name, working_dir=self._working_dir)]

    def _expand(self, parts: Sequence[str], origin: LoadedObject) -> Iterator[str]:
        """Expand ``$ORIGIN``; a search path with any other token is ignored as a whole."""
        directory = posixpath.dirname(origin.path)
        expanded = [part.replace("${ORIGIN}", directory).replace("$ORIGIN", directory) for part in parts]
        if not any("$" in part for part in expanded):
            yield from (absolute(part, working_dir=self._working_dir) for part in expanded)


def _substitute(text: str, values: Mapping[str, str]) -> str:
    return _TOKEN.sub(lambda match: values[match[1] or match[2]], text)


def _split(text: str, separators: str) -> tuple[str, ...]:
    return tuple(part for part in re.split(f"[{re.escape(separators)}]", text) if part)
