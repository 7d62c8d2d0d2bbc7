"""What a program opened, from a record of its system calls: the text of strace(1), or a list of paths.

A record of ``strace -f -e trace=file COMMAND`` (with or without time stamps, process numbers, ``-y``) is read for files
that were opened or executed with success; what was only looked for is not part of the answer.
"""

from __future__ import annotations

import posixpath
import re

from sconify.errors import UserError

_RESULT = r"\)\s+=\s+(?P<result>-?\d+|\?).*"
_CALL = re.compile(rf"^(?P<before>[^\"'(]*?)(?P<call>[a-z_0-9]+)\((?P<arguments>.*?)(?:{_RESULT}|<unfinished \.\.\.>)$")
_RESUMED = re.compile(rf"^(?P<before>.*?)<\.\.\. (?P<call>[a-z_0-9]+) resumed>(?P<arguments>.*?){_RESULT}$")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
_DIRECTORY = re.compile(r"^(?:AT_FDCWD|-?\d+)(?:<(?P<path>/[^>]*)>)?,")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_SIMPLE = {"n": 10, "t": 9, "r": 13, "v": 11, "f": 12, "a": 7, "b": 8}
_PROCESS = re.compile(r"^\s*(?:\[pid\s+)?(\d+)\b")

_OPENING = frozenset({"creat", "execve", "execveat", "open", "openat", "openat2", "uselib"})
_RELATIVE_TO_DIRECTORY = frozenset({"execveat", "openat", "openat2"})


def traced_paths(text: str, *, working_dir: str, source: str) -> list[str]:
    """Return the absolute, normal paths that a record names, sorted, each once.

    Args:
        text: The record, or one absolute path on each line; empty lines and lines that begin with ``#`` don't count.
        working_dir: Where the program began.
        source: Where the text is from, for messages.

    Raises:
        UserError: No line has one of the two forms.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and all(line.startswith("/") for line in lines):
        return sorted({posixpath.normpath(line.rstrip()) for line in lines})
    reader = _Reader(working_dir or "/")
    calls = sum(reader.read(line) for line in lines)
    if not calls:
        raise UserError(
            f"{source} is neither the output of strace nor a list of absolute paths",
            remedy="record it with `strace -f -e trace=file -o FILE COMMAND`, or write one path on each line",
        )
    return sorted(reader.paths)


class _Reader:
    def __init__(self, working_dir: str) -> None:
        self._first = working_dir
        self._directories: dict[str, str] = {}
        self._unfinished: dict[tuple[str, str], str] = {}
        self.paths: set[str] = set()

    def read(self, line: str) -> bool:
        """Read one line; return whether it is a system call."""
        match = _RESUMED.match(line) or _CALL.match(line)
        if match is None:
            return False
        named = _PROCESS.match(match["before"])
        process, call, result = named[1] if named else "", match["call"], match["result"]
        arguments = match["arguments"]
        if match.re is _RESUMED:
            arguments = self._unfinished.pop((process, call), "") + arguments
        elif result is None:
            self._unfinished[process, call] = arguments
            return True
        if result is not None and result.isdigit():
            self._done(process, call, arguments)
        return True

    def _done(self, process: str, call: str, arguments: str) -> None:
        string = _STRING.search(arguments)
        if string is None:
            return
        path = _unescape(string[1])
        here = self._directories.get(process, self._first)
        if call == "chdir":
            self._directories[process] = posixpath.normpath(posixpath.join(here, path))
        if call not in _OPENING:
            return
        if call in _RELATIVE_TO_DIRECTORY and not path.startswith("/"):
            directory = _DIRECTORY.match(arguments)
            if directory is not None and directory["path"]:
                here = directory["path"]
            elif not arguments.startswith("AT_FDCWD"):
                return  # Relative to a descriptor whose path the record does not tell; strace -y would.
        self.paths.add(posixpath.normpath(posixpath.join(here, path)))


def _unescape(text: str) -> str:
    """Undo strace's C escapes."""

    def byte(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] == "x":
            return chr(int(code[1:], 16))
        if code[0].isdigit():
            return chr(int(code, 8) & 0xFF)
        return chr(_SIMPLE[code]) if code in _SIMPLE else code

    if "\\" not in text:
        return text
    return _ESCAPE.sub(byte, text).encode("latin-1", errors="replace").decode(errors="surrogateescape")
