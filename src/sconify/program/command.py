"""``--command``: words as the session language splits them, and a refusal of what only a shell would do.

No shell runs the command, so ``a && b`` would give ``a`` the arguments ``&&`` and ``b`` without a word. What stands in
single quotes is meant as it is; so is what a shell is told to run, for which there is no need to be that shell.
"""

from __future__ import annotations

import posixpath
import re

from sconify.errors import UserError
from sconify.program.script import SHELLS

_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
_QUOTED = re.compile(r"""'([^']*)'|"([^"]*)\"""")
_OPERATOR = re.compile(r"&&?|\|\|?|\|&|;;?|\(|\)|\{|\}|!")
"""Words that are operators of the shell (POSIX.1-2017, Shell Command Language, 2.10.2), and ``|&`` of bash."""
_REDIRECTION = re.compile(r"\d*(?:>>?|<<?<?|<>|>\|)(?:&?[\w./-]*)|&>>?[\w./-]*")
_EXPANSION = re.compile(r"\$(?:[A-Za-z_]\w*|[0-9@*#?]|\{|\()|`")
_PLACEHOLDER = re.compile(r"\$\$[^$]*\$\$|\$\$")
"""Of the session language, and its way to write a dollar."""
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def parse_command(text: str) -> tuple[str, ...]:
    """Split a command string as the session language does: at white space, single and double quotes honoured.

    There are no escapes and no expansions; ``$$SCONE::x$$`` and ``@@1`` pass unchanged.

    Args:
        text: The command.

    Returns:
        The argv, at least one word.

    Raises:
        UserError: The text is blank or a quote is not closed.
    """
    return tuple(_unquoted(word) for word in _words(text))


def require_no_shell(text: str) -> None:
    """Refuse a command that a shell is needed for.

    Args:
        text: What ``parse_command`` accepts.

    Raises:
        UserError: It has an operator, a redirection, an expansion or an assignment of the shell.
    """
    words = _words(text)
    program = posixpath.basename(_unquoted(words[0]))
    if _ASSIGNMENT.match(words[0]):
        name = words[0].partition("=")[0]
        raise _needs_shell(f"the assignment {words[0]}", f"give --env={name}=VALUE and leave it out of --command")
    for word in words:
        bare = _QUOTED.sub("", word)
        if word == bare and (_OPERATOR.fullmatch(word) or _REDIRECTION.fullmatch(word)):
            raise _needs_shell(word, f"leave it out, or write '{word}' if the program is to get it as an argument")
        if bare.endswith(";"):
            raise _needs_shell("; after " + word.rstrip(";"), f"leave it out, or quote it: '{word}'")
        seen = re.sub("'[^']*'", "", word) if program not in SHELLS else bare
        expansion = _EXPANSION.search(_PLACEHOLDER.sub("", seen))
        if expansion is not None:
            raise _needs_shell(
                f"the expansion in {word}",
                "write the value out, or name a secret ($$SCONE::NAME$$), or quote it with ' if it is meant as it is",
            )


def _needs_shell(construct: str, remedy: str) -> UserError:
    return UserError(
        f"--command is run without a shell, which would be needed for {construct}",
        remedy=f"{remedy}; to run a shell, give --binary=/bin/sh and --command=\"/bin/sh -c 'SCRIPT'\"",
    )


def _words(text: str) -> list[str]:
    """Return the words with their quotes."""
    words = []
    end = 0
    for match in _WORD.finditer(text):
        if text[end : match.start()].strip():
            break
        words.append(match[0])
        end = match.end()
    if text[end:].strip():
        raise UserError(
            f"--command has a quote that is not closed: {text[end:].strip()}",
            remedy="close it; a quote inside a word needs the other kind of quote around it",
        )
    if not words:
        raise UserError(
            "--command is empty, expected a program and its arguments", remedy='give --command="PROGRAM ARGUMENTS"'
        )
    return words


def _unquoted(word: str) -> str:
    return _QUOTED.sub(lambda match: match[1] if match[1] is not None else match[2], word)
