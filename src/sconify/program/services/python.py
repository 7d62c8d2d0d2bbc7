"""CPython: its standard library, installed packages and virtual environments.

Where it looks: Modules/getpath.py and Lib/site.py of CPython, and the dist-packages of Debian's.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from sconify.image.model import Entry, EntryType
from sconify.program.binary import Program
from sconify.program.ldconf import read_text
from sconify.program.services.service import ServiceLibraries, collect, names_of
from sconify.program.view import RootView, absolute, find

_NAME = re.compile(r"python(?P<version>\d(?:\.\d+)?)?[dt]?")
_LIBRARY = re.compile(r"libpython(?P<version>\d\.\d+t?)d?\.so")
_DIRECTORY = re.compile(r"python(?P<version>\d\.\d+t?)")
_LANDMARKS = ("os.py", "os.pyc")
"""Files by which CPython itself knows its standard library."""
_LIBRARY_DIRS = ("lib", "lib64")


class Python:
    """The ``python`` interpreter, from a distribution, its own prefix, or a virtual environment."""

    name = "Python"
    description = "standard library, site-packages and dist-packages, virtual environment, what extension modules need"

    def recognises(self, view: RootView, program: Program) -> bool:  # noqa: ARG002
        """True for ``python``, ``python3``, ``python3.11``, called by that name or being it."""
        return any(_NAME.fullmatch(posixpath.basename(path)) for path in names_of(program))

    def libraries(self, view: RootView, program: Program, *, environment: Mapping[str, str]) -> ServiceLibraries:
        """Find the trees by CPython's own landmarks.

        ``PYTHONHOME`` counts; ``PYTHONPATH`` names the user's own files, which the user declares.
        """
        environments = list(_virtual_environments(view, program))
        homes = [posixpath.dirname(program.path), *(home for _, home in environments)]
        prefixes = dict.fromkeys(prefix for prefix in (_prefix(view, home, program) for home in homes) if prefix)
        if environment.get("PYTHONHOME"):
            prefixes = dict.fromkeys(absolute(part, working_dir="/") for part in environment["PYTHONHOME"].split(":"))
        wanted: list[tuple[str, str]] = []
        versions: dict[str, None] = {}
        for prefix in prefixes:
            for version in _versions(view, prefix, program):
                versions[version] = None
                wanted += _trees(prefix, version)
        for root, _ in environments:
            wanted.append((posixpath.join(root, "pyvenv.cfg"), "marks the virtual environment"))
            for version in versions:
                wanted += [(path, "packages of the virtual environment") for path, _ in _trees(root, version)]
        user = environment.get("HOME") or "/root"
        wanted += [(f"{user}/.local/lib/python{version}", "packages of the user") for version in versions]
        return collect(view, wanted, links=_missing_links(view, program))


def _virtual_environments(view: RootView, program: Program) -> Iterator[tuple[str, str]]:
    """Yield the root of each virtual environment that the interpreter is called through, and its ``home``."""
    for directory in dict.fromkeys(posixpath.dirname(path) for path in names_of(program)):
        for root in (directory, posixpath.dirname(directory)):
            trail = find(view, posixpath.join(root, "pyvenv.cfg"))
            if trail is None or trail.entry.type is not EntryType.FILE:
                continue
            for line in read_text(view, trail.entry).splitlines():
                key, _, value = line.partition("=")
                if key.strip().lower() == "home" and value.strip().startswith("/"):
                    yield root, absolute(value.strip(), working_dir="/")


def _prefix(view: RootView, home: str, program: Program) -> str | None:
    """Return the first directory at or above ``home`` that has a standard library."""
    trail = find(view, home)
    directory = home if trail is None else trail.entry.path
    while True:
        if _versions(view, directory, program):
            return directory
        if directory == "/":
            return None
        directory = posixpath.dirname(directory)


def _versions(view: RootView, prefix: str, program: Program) -> list[str]:
    """Return the versions whose standard library is below ``prefix``: the program's own, or all if that is unknown."""
    known = _version(program)
    found: dict[str, None] = {}
    for library_dir in _LIBRARY_DIRS:
        trail = find(view, posixpath.join(prefix, library_dir))
        if trail is None or trail.entry.type is not EntryType.DIRECTORY:
            continue
        for name in sorted(view.children(trail.entry.path)):
            match = _DIRECTORY.fullmatch(name)
            if match is None or (known is not None and match["version"].rstrip("t") != known.rstrip("t")):
                continue
            if any(find(view, posixpath.join(trail.entry.path, name, landmark)) for landmark in _LANDMARKS):
                found[match["version"]] = None
    return list(found)


def _version(program: Program) -> str | None:
    """Return the version, such as ``3.11``, from the shared library that is linked or from the program's name."""
    for name in program.elf.needed:
        match = _LIBRARY.match(name)
        if match is not None:
            return match["version"]
    for path in names_of(program):
        match = _NAME.fullmatch(posixpath.basename(path))
        if match is not None and match["version"] and "." in match["version"]:
            return match["version"]
    return None


def _trees(prefix: str, version: str) -> list[tuple[str, str]]:
    trees = [(posixpath.join(prefix, part, f"python{version}"), "library of Python") for part in _LIBRARY_DIRS]
    archive = f"python{version.replace('.', '').rstrip('t')}.zip"
    trees += [(posixpath.join(prefix, part, archive), "library of Python") for part in _LIBRARY_DIRS]
    if prefix == "/usr":
        trees.append(("/usr/lib/python3", "Python packages of the distribution"))
        trees += [(f"/usr/local/{part}/python{version}", "installed Python packages") for part in _LIBRARY_DIRS]
    return trees


def _missing_links(view: RootView, program: Program) -> tuple[Entry, ...]:
    """Return ``python3`` beside ``python3.11`` if there is no program of that name."""
    directory, name = posixpath.split(program.path)
    match = _NAME.fullmatch(name)
    if match is None or not match["version"] or "." not in match["version"]:
        return ()
    path = posixpath.join(directory, f"python{match['version'].partition('.')[0]}")
    if view.lookup(path) is not None:
        return ()
    original = program.trail.entry
    link = Entry(
        path=path,
        type=EntryType.SYMLINK,
        mode=0o777,
        mtime=original.mtime,
        mtime_nsec=original.mtime_nsec,
        target=name,
    )
    return (link,)
