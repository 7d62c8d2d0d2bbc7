"""The part of the shell language that needs no shell: one simple command of literal words.

``sh -c 'python3 -B app.py'`` starts one program with fixed arguments, so the shell can be left out. Everything for
which a shell is needed is refused by name: an argv that differs from what the shell would have given is worse than an
error. Where dash, bash and busybox differ (brace expansion, tilde after ``=``), what any of them treats specially is
refused.

Grammar: POSIX.1-2017, Shell Command Language, sections 2.2 (quoting), 2.3 (tokens), 2.4 (reserved words) and 2.9.1
(simple commands).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sconify.errors import UserError

_BLANKS = " \t"
_SPECIAL = {
    "$": "an expansion ($)",
    "`": "a command substitution (`)",
    "|": "a pipe (|)",
    "&": "a background or conditional command (&)",
    ";": "a second command (;)",
    "<": "a redirection (<)",
    ">": "a redirection (>)",
    "(": "a subshell or function (()",
    ")": "a subshell or function ())",
    "*": "a file name pattern (*)",
    "?": "a file name pattern (?)",
    "[": "a file name pattern ([)",
    "~": "a home directory (~)",
    "{": "a brace expansion or group ({)",
    "}": "a brace expansion or group (})",
}
"""What an unquoted character starts."""

# fmt: off
_RESERVED = frozenset(
    {
        "!", "[[", "]]", "case", "coproc", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if",
        "in", "select", "then", "time", "until", "while",
    }
)
# fmt: on
# fmt: off
_BUILTINS = frozenset(
    {
        ".", ":", "alias", "bg", "bind", "break", "builtin", "caller", "cd", "command", "complete", "compgen",
        "continue", "declare", "dirs", "disown", "enable", "eval", "exit", "export", "fc", "fg", "getopts",
        "hash", "help", "history", "jobs", "let", "local", "logout", "mapfile", "popd", "pushd", "read",
        "readarray", "readonly", "return", "set", "shift", "shopt", "source", "suspend", "times", "trap",
        "type", "typeset", "ulimit", "umask", "unalias", "unset", "wait",
    }
)
# fmt: on
"""Commands that only a shell can run; those that exist as programs too (echo, test, true ...) are not among them."""

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")


class ShellNeededError(UserError):
    """A command line can't be run without a shell.

    Args:
        construct: What needs the shell, as a noun phrase.
    """

    def __init__(self, construct: str) -> None:
        super().__init__(f"a shell is needed for {construct}", remedy='give --command="PROGRAM ARGUMENTS"')
        self.construct = construct


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    bare: int
    """Number of characters before the first quoted one."""


def split_words(text: str) -> tuple[str, ...]:
    """Split a line into literal words by the shell's quoting rules.

    Args:
        text: The line.

    Returns:
        The words without their quotes; none for a blank line.

    Raises:
        ShellNeededError: A character stands outside quotes, or a ``$`` or backquote inside double quotes, which means
            more than itself to a shell; or a quote is not closed.
    """
    return tuple(word.text for word in _Lexer(text).words())


def split_simple_command(script: str) -> tuple[str, ...]:
    """Return the argv of a shell script that is one simple command of literal words.

    A leading ``exec`` is dropped: without a shell in between there is no process to replace.

    Args:
        script: The operand of ``sh -c``.

    Returns:
        The program and its arguments, at least the program.

    Raises:
        ShellNeededError: The script is anything else.
    """
    words = _Lexer(script).words()
    if words and words[0].text == "exec":
        words = words[1:]
        if words and words[0].text.startswith("-"):
            raise ShellNeededError(f"exec with an option ({words[0].text})")
    if not words:
        raise ShellNeededError("an empty command")
    first = words[0]
    if _ASSIGNMENT.match(first.text[: first.bare]):
        raise ShellNeededError(f"a variable assignment ({first.text.partition('=')[0]}=)")
    if first.text in _RESERVED and first.bare == len(first.text):
        raise ShellNeededError(f"a compound command ({first.text})")
    if first.text in _BUILTINS:
        raise ShellNeededError(f"a command of the shell itself ({first.text})")
    if not first.text:
        raise ShellNeededError("an empty command")
    return tuple(word.text for word in words)


class _Lexer:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def words(self) -> list[_Word]:
        words: list[_Word] = []
        while True:
            self._skip_blanks()
            if self._at == len(self._text):
                return words
            if self._text[self._at] == "#":
                raise ShellNeededError("a comment (#)")
            if self._text[self._at] == "\n":
                self._end_line(first=not words)
            else:
                words.append(self._word())

    def _end_line(self, *, first: bool) -> None:
        """Pass over a new line before the command or at the end of the text."""
        if not first and self._text[self._at :].strip(_BLANKS + "\n"):
            raise ShellNeededError("a second command (new line)")
        self._at += 1

    def _skip_blanks(self) -> None:
        while self._at < len(self._text):
            if self._text[self._at] in _BLANKS:
                self._at += 1
            elif self._text.startswith("\\\n", self._at):
                self._at += 2
            else:
                return

    def _word(self) -> _Word:
        parts: list[str] = []
        bare: int | None = None
        while self._at < len(self._text) and self._text[self._at] not in _BLANKS + "\n":
            char = self._text[self._at]
            if char in "'\"\\" and not self._text.startswith("\\\n", self._at) and bare is None:
                bare = sum(map(len, parts))
            if char == "'":
                parts.append(self._single_quoted())
            elif char == '"':
                parts.append(self._double_quoted())
            elif char == "\\":
                parts.append(self._escaped())
            elif char in _SPECIAL:
                raise ShellNeededError(_SPECIAL[char])
            else:
                parts.append(char)
                self._at += 1
        text = "".join(parts)
        return _Word(text, len(text) if bare is None else bare)

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise ShellNeededError("a quote that is not closed (')")
        start, self._at = self._at + 1, end + 1
        return self._text[start:end]

    def _double_quoted(self) -> str:
        parts: list[str] = []
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return "".join(parts)
            if char in "$`":
                raise ShellNeededError(_SPECIAL[char])
            if char == "\\" and self._text[self._at + 1 : self._at + 2] in ("$", "`", '"', "\\", "\n"):
                parts.append(self._escaped())
            else:
                parts.append(char)
                self._at += 1
        raise ShellNeededError('a quote that is not closed (")')

    def _escaped(self) -> str:
        """Return what a backslash quotes; a backslash before a new line joins two lines."""
        char = self._text[self._at + 1 : self._at + 2]
        if not char:
            raise ShellNeededError("a backslash at the end")
        self._at += 2
        return "" if char == "\n" else char
