"""The health check of an image: what an engine would run, and which programs of the image that takes.

The forms are those of Docker's ``Healthcheck.Test``: ``["NONE"]``, ``["CMD", word…]`` and ``["CMD-SHELL", text]``.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sconify.errors import UserError
from sconify.program.binary import locate
from sconify.program.view import RootView

SHELL = "/bin/sh"
"""What runs ``CMD-SHELL``; an image's ``SHELL`` is for its build."""

ARGUMENT = "sconify:health-check"
"""With this argument the sconified binary asks the running one for the check (``supervisor/health.rs``)."""

ATTRIBUTE = "user.sconify.health-check"
"""The extended attribute of the program's file in the index that holds the check."""

_OPERATORS = frozenset({";", "&", "|", "&&", "||", "(", ")", "!", "if", "then", "else", "elif", "do", "while", "until"})

_SUBSTITUTION = re.compile(r"(?:\$\(|`)\s*([\w./+-]+)")
"""The first word of what a shell puts in the place of its output."""


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A health check that can be run."""

    argv: tuple[str, ...]
    program: str
    """Where ``argv[0]`` stands, an absolute path."""
    commands: tuple[str, ...]
    """Programs, as paths or bare names, that the check starts as far as its text shows."""

    def attribute(self) -> bytes:
        """Return what the index holds: a JSON array of the program's path and its arguments."""
        return json.dumps([self.program, *self.argv]).encode()

    def converted(self, healthcheck: Mapping[str, Any], *, binary: str) -> dict[str, Any]:
        """Return the output image's ``Healthcheck``: the native one's times, our command."""
        return {**healthcheck, "Test": ["CMD", binary, ARGUMENT]}


def health_check(
    view: RootView, healthcheck: Mapping[str, Any] | None, *, environment: Mapping[str, str], working_dir: str
) -> HealthCheck | None:
    """Read a ``Healthcheck``; None if there is none.

    Raises:
        UserError: Its program is not in the image, or it has another form.
    """
    test = (healthcheck or {}).get("Test") or []
    match test:
        case [] | ["NONE"]:
            return None
        case ["CMD", str(), *_]:
            argv = tuple(map(str, test[1:]))
            commands: tuple[str, ...] = ()
        case ["CMD-SHELL", str(text)]:
            argv = (SHELL, "-c", text)
            commands = tuple(dict.fromkeys(_commands(text)))
        case _:
            raise UserError(
                f"the native image's HEALTHCHECK has the test {json.dumps(test)[:80]}, expected CMD or CMD-SHELL",
                remedy="give the native image a HEALTHCHECK of one of these forms",
            )
    program = locate(view, argv[0], environment=environment, working_dir=working_dir)
    return HealthCheck(argv=argv, program=program.path, commands=(argv[0], *commands))


def _commands(text: str) -> Iterator[str]:
    """Yield the words of a shell text that stand where commands do; what can't be read has none."""
    for inner in _SUBSTITUTION.finditer(text):
        yield inner[1]
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    begins = True
    try:
        for word in lexer:
            if word in _OPERATORS:
                begins = True
            elif begins and "=" not in word:
                yield word
                begins = False
    except ValueError:
        return
