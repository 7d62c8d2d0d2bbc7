"""Interpreter lines: the ``#!`` at the start of a script, as Linux reads it (execve(2), fs/binfmt_script.c)."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from sconify.errors import UserError
from sconify.program.shell import split_words

SHEBANG_SIZE = 256
"""Bytes of a file that the kernel looks at; a longer line is cut off."""

SHELLS = frozenset({"ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "sh", "tcsh", "zsh"})
"""File names of shells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shebang:
    """What starts a script."""

    argv: tuple[str, ...]
    """Interpreter and its arguments; the script's path and arguments follow. A bare name is searched for in PATH."""

    @property
    def program(self) -> str:
        """The interpreter."""
        return self.argv[0]

    @property
    def is_shell(self) -> bool:
        """True if the interpreter is a shell."""
        return posixpath.basename(self.program) in SHELLS


def parse_shebang(head: bytes) -> Shebang | None:
    """Read the interpreter line of a script.

    ``#!/usr/bin/env NAME`` gives the name, as ``env`` only searches for it in PATH; ``env -S`` splits what follows.

    Args:
        head: The first ``SHEBANG_SIZE`` bytes of the file, fewer if it is shorter.

    Returns:
        The interpreter; None if the bytes start no script.

    Raises:
        UserError: ``env`` is asked for more than to find a program.
    """
    if not head.startswith(b"#!"):
        return None
    line = head[2:SHEBANG_SIZE].partition(b"\n")[0].decode(errors="surrogateescape").strip(" \t")
    if not line or "\0" in line:
        return None
    parts = line.split(maxsplit=1)
    if posixpath.basename(parts[0]) != "env":
        return Shebang(argv=tuple(parts))
    return Shebang(argv=_through_env(line, parts[1] if len(parts) == 2 else ""))


def _through_env(line: str, argument: str) -> tuple[str, ...]:
    """Return what ``env`` runs, given the one argument that the kernel passes on."""
    refused = UserError(
        f"the interpreter line #!{line} asks env for more than to find a program",
        remedy='give --binary=PATH and --command="PROGRAM ARGUMENTS"',
    )
    for option in ("-S", "--split-string="):
        if argument.startswith(option):
            argv = split_words(argument.removeprefix(option))
            break
    else:
        argv = (argument,)
    if not argv or not argv[0] or argv[0].startswith("-") or "=" in argv[0]:
        raise refused
    return argv
