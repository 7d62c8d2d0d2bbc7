"""Proposes what to convert by looking at an image: its program, and the directories that are worth encrypting.

What belongs to the distribution is public. What an image's author adds stands elsewhere: in the working directory, in
directories of its own at the root, below ``/opt``, ``/srv`` and ``/home``, or where its program is told to look.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from sconify.errors import UserError
from sconify.image.model import EntryType
from sconify.image.source import Image
from sconify.program.binary import Program, load_program, locate
from sconify.program.entrypoint import derive_command
from sconify.program.script import SHEBANG_SIZE, parse_shebang
from sconify.program.services import service_of
from sconify.program.view import absolute, find
from sconify.request import Request

STANDARD = frozenset(
    f"/{name}"
    for name in ("bin", "boot", "dev", "etc", "home", "lib", "lib32", "lib64", "libx32", "lost+found", "media", "mnt",
                 "nix", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp", "usr", "var")
)  # fmt: skip
"""Top-level directories of the Filesystem Hierarchy Standard 3.0, and those that package managers own."""

_OWN = ("/opt", "/srv", "/home")
_KNOWN = (
    ("/usr/src/app", "where many images keep their service"),
    ("/var/www", "what web servers serve"),
    ("/usr/share/nginx/html", "what nginx serves"),
    ("/etc/nginx", "configuration of nginx"),
    ("/etc/redis", "configuration of Redis"),
    ("/run/secrets", "secrets"),
    ("/etc/secrets", "secrets"),
    ("/etc/ssl/private", "private keys"),
    ("/etc/letsencrypt", "private keys"),
)
_SCRIPT_SIZE = 1 << 16
_EXECUTES_ARGUMENTS = ('exec "$@"', "exec $@", 'exec "${@}"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A value and the reason for it."""

    value: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """What to give to ``--binary``, ``--dir`` and, where the entrypoint does not say it, ``--command``."""

    binary: Suggestion
    directories: tuple[Suggestion, ...]
    command: Suggestion | None
    warnings: tuple[str, ...]


def propose(image: Image) -> Proposal:
    """Look at an image.

    Raises:
        UserError: Its entrypoint names no program, or one that can't be converted.
        UntrustedDataError: A file of it is malformed.
    """
    environment = image.config.env
    working_dir = absolute(image.config.working_dir, working_dir="/")
    warnings: list[str] = []
    command: Suggestion | None = None
    try:
        derived = derive_command(
            image.root, program=None, entrypoint=image.config.entrypoint, cmd=image.config.cmd, command=None,
            environment=environment, working_dir=working_dir,
        )  # fmt: skip
        argv, reason = derived.argv, derived.reason
    except UserError:
        if not _only_executes_its_arguments(image, working_dir):
            raise
        script = image.config.entrypoint[0]
        argv = image.config.cmd
        reason = f"Cmd of the image, which {script} executes"
        warnings.append(f"the entrypoint {script} is a shell script that prepares the start; that is left out")
        command = Suggestion(value=" ".join(_word(argument) for argument in argv), reason=reason)
    program = load_program(image.root, argv[0], environment=environment, working_dir=working_dir)
    directories = tuple(_directories(image, program, argv, working_dir))
    if not directories:
        warnings.append(
            "no directory of the image's author was found, only the binary is encrypted: give --dir=DIRECTORY"
        )
    return Proposal(
        binary=Suggestion(value=program.trail.path, reason=reason),
        directories=directories,
        command=command,
        warnings=tuple(warnings),
    )


def completed(request: Request, image: Image, *, note: Callable[[str], None], warn: Callable[[str], None]) -> Request:
    """Return a request with what ``--auto`` finds where the user named nothing, and say why.

    Raises:
        UserError: As ``propose``.
    """
    if not request.auto:
        return request
    proposal = propose(image)
    for warning in proposal.warnings:
        warn(warning)
    changes: dict[str, Any] = {}
    if not request.binary:
        note(f"--binary={proposal.binary.value}: {proposal.binary.reason}")
        changes["binary"] = proposal.binary.value
    if request.command is None and proposal.command is not None:
        note(f"--command={proposal.command.value}: {proposal.command.reason}")
        changes["command"] = proposal.command.value
    flag, field = ("--fs-dir", "fs_directories") if request.binary_fs else ("--dir", "directories")
    if not (request.directories or request.fs_directories or request.fs_files) and request.trace is None:
        for one in proposal.directories:
            note(f"{flag}={one.value}: {one.reason}")
        changes[field] = tuple(one.value for one in proposal.directories)
    return dataclasses.replace(request, **changes)


def _only_executes_its_arguments(image: Image, working_dir: str) -> bool:
    """True for the usual ``docker-entrypoint.sh``: a shell script that ends with ``exec "$@"``, and a Cmd for it."""
    if not image.config.entrypoint or not image.config.cmd:
        return False
    try:
        trail = locate(image.root, image.config.entrypoint[0], environment=image.config.env, working_dir=working_dir)
    except UserError:
        return False
    with image.root.open(trail.entry) as stream:
        text = stream.read(_SCRIPT_SIZE)
    shebang = parse_shebang(text[:SHEBANG_SIZE])
    if shebang is None or not shebang.is_shell:
        return False
    lines = [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]
    return bool(lines) and lines[-1] in _EXECUTES_ARGUMENTS


def _word(argument: str) -> str:
    """Return an argument as the session language splits it."""
    if argument and not any(character.isspace() or character in "'\"" for character in argument):
        return argument
    return f'"{argument}"' if '"' not in argument else f"'{argument}'"


def _directories(image: Image, program: Program, argv: tuple[str, ...], working_dir: str) -> Iterator[Suggestion]:
    root = image.root
    taken = _taken_along(image, program)
    proposed: list[str] = []
    for path, reason in _candidates(image, argv, working_dir):
        trail = find(root, path)
        if trail is None or trail.entry.type is not EntryType.DIRECTORY:
            continue
        real = trail.entry.path
        covered = any(real == other or real.startswith(f"{other}/") for other in (*proposed, *taken))
        if covered or real in STANDARD or real == "/" or not _has_files(image, real):
            continue
        proposed.append(real)
        yield Suggestion(value=real, reason=reason)


def _candidates(image: Image, argv: tuple[str, ...], working_dir: str) -> Iterator[tuple[str, str]]:
    """Yield directories with reasons; those above come before those below."""
    for name in image.root.children("/"):
        if f"/{name}" not in STANDARD:
            yield f"/{name}", "not a directory of the distribution"
    for parent in _OWN:
        for name in image.root.children(parent):
            yield f"{parent}/{name}", f"below {parent}, which no distribution fills"
    yield working_dir, "the working directory"
    for argument in argv[1:]:
        path = absolute(argument, working_dir=working_dir) if not argument.startswith("-") else ""
        trail = find(image.root, path) if path else None
        if trail is not None and trail.entry.type in (EntryType.FILE, EntryType.DIRECTORY):
            is_file = trail.entry.type is EntryType.FILE
            directory = posixpath.dirname(trail.entry.path) if is_file else trail.entry.path
            yield directory, f"the command names {argument}"
    yield from _KNOWN


def _taken_along(image: Image, program: Program) -> list[str]:
    """Return the directories that come along anyway, authenticated."""
    service = service_of(image.root, program)
    if service is None:
        return []
    libraries = service.libraries(image.root, program, environment=image.config.env)
    entries = [inclusion.trail.entry for inclusion in libraries.inclusions]
    return [entry.path for entry in entries if entry.type is EntryType.DIRECTORY]


def _has_files(image: Image, path: str) -> bool:
    return any(entry.type is EntryType.FILE for entry in image.root.walk(path))
