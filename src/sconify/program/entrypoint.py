"""From the image's Entrypoint and Cmd, or ``--command``, to the argv of the one program that will run."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sconify.errors import UserError
from sconify.program.binary import Program, locate, same_file
from sconify.program.command import parse_command, require_no_shell
from sconify.program.script import SHEBANG_SIZE, SHELLS, parse_shebang
from sconify.program.shell import ShellNeededError, split_simple_command
from sconify.program.view import RootView, Trail

MAX_UNWRAPPINGS = 8
"""A shell that starts a script that starts ...: the kernel stops at 5 interpreters (BINPRM_MAX_RECURSION)."""

MAX_SHOWN = 200
"""Characters of an argv that a message shows."""

_SUGGESTIBLE = re.compile(r"[\w@%+=:,./ -]+")
_SHELL_FLAGS = frozenset("ceuxf")
"""Options of a shell that change nothing about one literal command, and ``-c`` itself."""
_SHELL_NAMED_OPTIONS = frozenset({"errexit", "nounset", "pipefail", "xtrace", "noglob"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What the policy's ``command`` will be."""

    argv: tuple[str, ...]
    reason: str
    """Where it comes from, for ``--explain``."""


def derive_command(
    view: RootView,
    *,
    program: Program | None,
    entrypoint: Sequence[str],
    cmd: Sequence[str],
    command: str | None,
    environment: Mapping[str, str],
    working_dir: str,
) -> Command:
    """Decide on the argv that the policy gives to the program.

    An explicit ``command`` is taken as it is: its first word need not be the program's path. Else Entrypoint and Cmd
    are unwrapped (shells that run one simple command, interpreter lines) until they name ``program``.

    Args:
        view: The root file system.
        program: What ``--binary`` names; None if it isn't given, then the unwrapped argv stands as it is.
        entrypoint: Of the image's configuration.
        cmd: Of the image's configuration.
        command: The value of ``--command``.
        environment: The image's environment.
        working_dir: The image's working directory.

    Returns:
        The command and where it comes from.

    Raises:
        UserError: There is no command, a shell is needed to run it (``command`` included), or it runs another program
            than ``program``.
    """
    if command is not None:
        require_no_shell(command)
        return Command(argv=parse_command(command), reason="given by --command")
    argv = (*entrypoint, *cmd)
    if not argv:
        raise UserError(
            "the image has neither Entrypoint nor Cmd, expected one of them to name the program",
            remedy='give --command="PROGRAM ARGUMENTS"',
        )
    unwrapper = _Unwrapper(view, program, environment, working_dir)
    reason = (
        "Entrypoint and Cmd of the image"
        if entrypoint and cmd
        else "Entrypoint of the image"
        if entrypoint
        else "Cmd of the image"
    )
    for _ in range(MAX_UNWRAPPINGS):
        step = unwrapper.step(argv)
        if step is None:
            return Command(argv=argv, reason=reason)
        argv, how = step
        reason = f"{reason}, {how}"
    raise UserError(
        f"{_show(argv)} is still no program after {MAX_UNWRAPPINGS} shells and scripts",
        remedy='give --binary=PATH and --command="PROGRAM ARGUMENTS"',
    )


class _Unwrapper:
    """Takes one wrapper at a time from an argv."""

    def __init__(
        self, view: RootView, program: Program | None, environment: Mapping[str, str], working_dir: str
    ) -> None:
        self._view = view
        self._program = program
        self._environment = environment
        self._working_dir = working_dir

    def step(self, argv: tuple[str, ...]) -> tuple[tuple[str, ...], str] | None:
        """Return the argv inside ``argv`` and how it was found; None if ``argv`` runs the program itself."""
        trail = self._locate(argv)
        if self._program is not None and same_file(trail.entry, self._program.trail.entry):
            return None
        with self._view.open(trail.entry) as stream:
            shebang = parse_shebang(stream.read(SHEBANG_SIZE))
        if shebang is None:
            if _is_shell(argv[0], trail):
                return self._unwrap_shell(argv), "taken out of its shell"
            if self._program is not None:
                raise UserError(
                    f"the image starts {_show(argv)}, which runs {trail.entry.path}, "
                    f"but --binary is {self._program.path}",
                    remedy=f'give --binary={trail.entry.path}, or --command="{self._program.trail.path} ARGUMENTS"',
                )
            return None
        if shebang.is_shell:
            raise UserError(
                f"{trail.path}, which the image starts, is a shell script ({shebang.program}), expected a program",
                remedy="give --binary=PATH with the program that the script starts, "
                f'and --command="{_suggest(argv[1:])}"',
            )
        return (*shebang.argv, self._script_path(argv[0], trail), *argv[1:]), f"{trail.path} run by its interpreter"

    def _script_path(self, name: str, trail: Trail) -> str:
        """Return the script's path as the kernel passes it on: as given, or as found in PATH."""
        return name if "/" in name else trail.path

    def _locate(self, argv: tuple[str, ...]) -> Trail:
        try:
            return locate(self._view, argv[0], environment=self._environment, working_dir=self._working_dir)
        except UserError as error:
            raise UserError(
                f"the image starts {_show(argv)}, but {error.what}",
                remedy='give --binary=PATH and --command="PROGRAM ARGUMENTS"',
            ) from None

    def _unwrap_shell(self, argv: tuple[str, ...]) -> tuple[str, ...]:
        script = _shell_script(argv)
        try:
            return split_simple_command(script)
        except ShellNeededError as error:
            binary = self._program.trail.path if self._program else "PROGRAM"
            raise UserError(
                f"the image starts {_show(argv)}, which needs a shell for {error.construct}; "
                "expected one simple command",
                remedy=f'give --command="{binary} ARGUMENTS" with the arguments written out',
            ) from None


def _is_shell(name: str, trail: Trail) -> bool:
    """True if the argv's program is a shell by the name it is called with, or by its own name."""
    called = posixpath.basename(name)
    return called in SHELLS or (posixpath.basename(trail.entry.path) in SHELLS - {"busybox"})


def _shell_script(argv: tuple[str, ...]) -> str:
    """Return the operand of ``-c`` of a shell's argv."""
    remedy = 'give --binary=PATH and --command="PROGRAM ARGUMENTS"'
    words = list(argv[1:])
    if words and posixpath.basename(argv[0]) == "busybox" and words[0] in SHELLS:
        words.pop(0)
    has_script = False
    while words and words[0].startswith("-") and words[0] not in ("-", "--"):
        option = words.pop(0)
        flags = option[1:]
        if flags.endswith("o") and words and words[0] in _SHELL_NAMED_OPTIONS:
            words.pop(0)
            flags = flags[:-1]
        if set(flags) - _SHELL_FLAGS:
            raise UserError(
                f"the image starts {_show(argv)}, and the shell's option {option} changes how the command runs",
                remedy=remedy,
            )
        has_script = has_script or "c" in flags
    if words and words[0] in ("-", "--"):
        words.pop(0)
    if not words:
        raise UserError(f"the image starts an interactive shell ({_show(argv)}), expected a program", remedy=remedy)
    if not has_script:
        raise UserError(
            f"the image starts the shell script {words[0]} ({_show(argv)}), expected a program", remedy=remedy
        )
    return words[0]


def _show(argv: Sequence[str]) -> str:
    """Return an argv for a message, in one line of bearable length that does nothing to a terminal."""
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in shlex.join(argv))
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _suggest(argv: Sequence[str]) -> str:
    """Return an argv as it can stand between the double quotes of --command="..." in a shell."""
    if not argv or not all(_SUGGESTIBLE.fullmatch(word) for word in argv):
        return "PROGRAM ARGUMENTS"
    return " ".join(f"'{word}'" if " " in word else word for word in argv)
