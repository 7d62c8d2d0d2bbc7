"""The program that ``--binary`` names: where it stands in the image, which links lead to it, and whether it can run."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from sconify.errors import UserError
from sconify.image.model import Entry, EntryType
from sconify.program.elf import IDENTITY_SIZE, MACHINE_X86_64, Elf, Libc, identify, parse_elf
from sconify.program.script import SHEBANG_SIZE, parse_shebang
from sconify.program.shims import behind_shim
from sconify.program.view import RootView, Trail, TrailError, absolute, find, trace

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What container engines set when the image has no PATH."""


class UnsconifiableError(UserError):
    """A program that can't run on the target platform; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A program that can be converted: an x86-64 ELF executable of the image."""

    trail: Trail
    """From the path that was asked for, through its links, to the file."""
    elf: Elf
    libc: Libc

    @property
    def path(self) -> str:
        """The canonical path: no component of it is a link."""
        return self.trail.entry.path


def same_file(one: Entry, other: Entry) -> bool:
    """True if two entries are one file: the same path, or hard links of one another."""
    return one.path == other.path or (one.link_group != 0 and one.link_group == other.link_group)


def search_path(environment: Mapping[str, str]) -> list[str]:
    """Return the directories of the image's PATH, or of the default one if the image sets none."""
    return [part for part in environment.get("PATH", DEFAULT_PATH).split(":") if part]


def locate(view: RootView, name: str, *, environment: Mapping[str, str], working_dir: str) -> Trail:
    """Find an executable file as ``execvp`` would in the container.

    Args:
        view: The root file system.
        name: An absolute path, a path relative to ``working_dir`` (with a slash in it), or a bare name.
        environment: The image's environment; its PATH is searched for a bare name.
        working_dir: The image's working directory; empty means ``/``.

    Returns:
        The way to the file.

    Raises:
        UserError: There is none, or it is a directory, a device or not executable.
    """
    if not name:
        raise UserError("an empty program name", remedy="give --binary=PATH")
    if "/" not in name:
        found = _locate_on_path(view, name, environment=environment, working_dir=working_dir)
        return behind_shim(view, found) or found
    try:
        trail = trace(view, absolute(name, working_dir=working_dir))
    except TrailError as error:
        raise UserError(error.what, remedy="give --binary=PATH with the path of a program in the image") from None
    problem = _why_not_executable(trail)
    if problem is not None:
        raise UserError(problem, remedy="give --binary=PATH with the path of a program")
    return behind_shim(view, trail) or trail


def _locate_on_path(view: RootView, name: str, *, environment: Mapping[str, str], working_dir: str) -> Trail:
    directories = search_path(environment)
    unfit = None
    for directory in directories:
        trail = find(view, posixpath.join(absolute(directory, working_dir=working_dir), name))
        if trail is None:
            continue
        problem = _why_not_executable(trail)
        if problem is None:
            return trail
        unfit = unfit or problem
    if unfit is not None:
        raise UserError(unfit, remedy="give --binary=PATH with the path of a program")
    raise UserError(
        f"{name} is in no directory of the image's PATH ({':'.join(directories)})", remedy="give --binary=PATH"
    )


def _why_not_executable(trail: Trail) -> str | None:
    entry = trail.entry
    if entry.type is EntryType.DIRECTORY:
        return f"{trail.path} is a directory, expected a program"
    if entry.type is not EntryType.FILE:
        return f"{trail.path} is not a regular file, expected a program"
    if not entry.mode & 0o111:
        return f"{trail.path} is not executable (mode {entry.mode:04o})"
    return None


def load_program(view: RootView, name: str, *, environment: Mapping[str, str], working_dir: str) -> Program:
    """Find the program that ``--binary`` names and check that it can be converted.

    Args:
        view: The root file system.
        name: As for :func:`locate`.
        environment: The image's environment.
        working_dir: The image's working directory.

    Returns:
        The program with what its ELF headers say.

    Raises:
        UserError: There is no such program, or it is a script, no ELF file, no executable, or for another architecture
            or C library.
        UntrustedDataError: Its ELF headers are malformed.
    """
    trail = locate(view, name, environment=environment, working_dir=working_dir)
    with view.open(trail.entry) as stream:
        head = stream.read(SHEBANG_SIZE)
        _check_runnable(trail, head)
        elf = parse_elf(stream, name=trail.path)
    if not elf.executable:
        raise UserError(
            f"{trail.path} is an ELF file of type {elf.type.name.lower()}, expected an executable",
            remedy="give --binary=PATH with the path of a program",
        )
    if elf.libc is None:
        raise UnsconifiableError(
            f"{trail.path} is started by {elf.interpreter or 'no dynamic loader'}, expected the loader of glibc "
            "(ld-linux) or of musl (ld-musl)",
            remedy="give --binary=PATH with a program for glibc or musl, or a static one, or a --replacement-image",
        )
    return Program(trail=trail, elf=elf, libc=elf.libc)


def _check_runnable(trail: Trail, head: bytes) -> None:
    identity = identify(head[:IDENTITY_SIZE])
    if identity is None:
        shebang = parse_shebang(head)
        if shebang is not None:
            program = "PATH with the program that the script starts" if shebang.is_shell else shebang.program
            raise UserError(
                f"{trail.path} is a script: interpreter {shebang.program}", remedy=f"give --binary={program}"
            )
        raise UserError(
            f"{trail.path} is neither an ELF file nor a script with an interpreter line (#!)",
            remedy="give --binary=PATH with the path of a program",
        )
    if identity.runnable:
        return
    bits = f"{identity.bits}-bit " if identity.bits != 64 else ""
    remedy = "convert the image's linux/amd64 variant"
    if identity.machine == MACHINE_X86_64 or identity.architecture == "i386":
        remedy = "give --binary=PATH with a 64-bit build of the program, or convert the image's linux/amd64 variant"
    raise UnsconifiableError(
        f"{trail.path} is for {bits}{identity.architecture}, expected 64-bit x86_64",
        remedy=f"{remedy}, or give a --replacement-image that has it",
    )


def detect_symlinks(
    view: RootView, program: Program, *, environment: Mapping[str, str], working_dir: str
) -> list[Entry]:
    """Find the symbolic links through which the program may be called.

    Searched are the directory of the program and those of the image's PATH and of the default PATH. Links to links
    (``/usr/bin/java -> /etc/alternatives/java -> ...``) and links of directories on the way (``/bin -> usr/bin``) are
    part of the result.

    Args:
        view: The root file system.
        program: The program.
        environment: The image's environment.
        working_dir: The image's working directory.

    Returns:
        The links, sorted by path; those that led to the program in the first place are among them.
    """
    own = [posixpath.dirname(program.path), posixpath.dirname(program.trail.path)]
    directories = dict.fromkeys([*own, *search_path(environment), *DEFAULT_PATH.split(":")])
    found = {link.path: link for link in program.trail.links}
    for directory in directories:
        place = find(view, absolute(directory, working_dir=working_dir))
        if place is None or place.entry.type is not EntryType.DIRECTORY:
            continue
        for name in view.children(place.entry.path):
            path = posixpath.join(place.entry.path, name)
            entry = view.lookup(path)
            if entry is None or (entry.type is not EntryType.SYMLINK and path != program.path):
                continue
            trail = find(view, path)
            if trail is not None and trail.entry.path == program.path:
                found.update((link.path, link) for link in (*place.links, *trail.links))
    return [found[path] for path in sorted(found)]
