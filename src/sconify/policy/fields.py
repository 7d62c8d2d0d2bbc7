"""The types of single values of the session language."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from sconify.errors import UserError
from sconify.policy.document import Number
from sconify.policy.keyhash import certificate_key_hash, decode_key_hash
from sconify.policy.part import invalid

MAX_NAME = 128
MAX_SESSION_NAME = 512
ROOT = "/"
"""The name of the root namespace's session."""
_ELEMENT = re.compile(rf"[A-Za-z0-9_.~-]{{1,{MAX_NAME}}}")
_VERSION = re.compile(r"0\.3(\.[0-9]{1,2})?")
_MODE = re.compile(r"0o[0-7]{1,3}")
_DURATION = re.compile(r"(?:[0-9]{1,6} *[a-zA-Z]+ *)+")
# As humantime and systemd.time have them: a month is the twelfth part of a year of 365.25 days.
_UNITS = (
    (1, ("s", "sec", "secs", "second", "seconds")),
    (60, ("m", "min", "mins", "minute", "minutes")),
    (3600, ("h", "hr", "hrs", "hour", "hours")),
    (86_400, ("d", "day", "days")),
    (604_800, ("w", "week", "weeks")),
    (2_629_800, ("M", "month", "months")),
    (31_557_600, ("y", "year", "years")),
)
_SECONDS = {name: seconds for seconds, names in _UNITS for name in names}
_MAX_DURATION = 2000 * 31_557_600


def _text(value: object) -> str:
    """Accept text, and numbers as they are spelled (an unquoted key of digits is still a key)."""
    if isinstance(value, Number):
        return value.source
    if not isinstance(value, str):
        kind = {"bool": "a boolean", "NoneType": "nothing", "list": "a list", "dict": "a mapping"}.get(
            type(value).__name__, type(value).__name__
        )
        raise invalid(f"got {kind}, expected text" + ("; write it in quotes" if isinstance(value, bool) else ""))
    return value


def _no_nul(value: object) -> str:
    text = _text(value)
    if "\0" in text:
        raise invalid("text holds a NUL character")
    return text


def _element(value: object) -> str:
    text = _text(value)
    if not _ELEMENT.fullmatch(text) or text in (".", ".."):
        raise invalid(f"got {text[:40]!r}, expected a name: 1 to {MAX_NAME} of A-Z a-z 0-9 _ - . ~")
    return text


def _session_name(value: object) -> str:
    text = _text(value)
    if text == ROOT:
        return text
    if len(text) > MAX_SESSION_NAME:
        raise invalid(f"the name has {len(text)} characters, expected at most {MAX_SESSION_NAME}")
    for element in text.split("/"):
        _element(element)
    return text


def _version(value: object) -> str:
    text = _text(value)
    if not _VERSION.fullmatch(text):
        raise invalid(f'got version {text[:20]!r}, expected "0.3" or "0.3.N"')
    return text


def _hex(value: object, *, digits: int, what: str) -> str:
    text = _text(value)
    if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", text):
        raise invalid(f"got {len(text)} characters, expected {what}: {digits} hex digits")
    return text.lower()


def _path(value: object) -> str:
    text = _no_nul(value)
    if not text.startswith("/") or posixpath.normpath(text) != text:
        raise invalid(f"got {text[:80]!r}, expected an absolute path without . or .. or doubled or trailing slashes")
    return text


def _mode(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 0o777:
        return value
    text = _text(value)
    # 0700 is octal in one YAML and decimal in another, so only the spelling that all agree on passes.
    if not _MODE.fullmatch(text):
        raise invalid(f"got {text[:20]!r}, expected octal permissions such as 0o700")
    return int(text[2:], 8)


def _count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = value.source if isinstance(value, Number) else ""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise invalid("expected a whole number")
    return int(text)


def _arguments(value: object) -> tuple[str, ...]:
    """Accept a list, or text that is split at white space, quotes honoured (a backslash is an ordinary character)."""
    if isinstance(value, str):
        lexer = shlex.shlex(value, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
        try:
            value = list(lexer)
        except ValueError:
            raise invalid("the command has a quote that is not closed") from None
    if not isinstance(value, list | tuple) or not value:
        raise invalid("got no argument, expected the program and its arguments as text or a list")
    return tuple(_no_nul(argument) for argument in value)


def _environment(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise invalid("expected a mapping of names to values")
    result = {}
    for name, member in value.items():
        if not name or "=" in name or "\0" in name:
            raise invalid(f"got {name[:40]!r}, expected the name of a variable: not empty, without = and NUL")
        try:
            result[name] = _no_nul(member)
        except PydanticCustomError as error:
            raise invalid(f"value of {name}: {error.message()}") from None
    return result


def key_hash(value: object) -> str:
    """Accept a key hash, or a PEM certificate, which becomes the key hash of its key."""
    text = _text(value)
    try:
        if text.lstrip().startswith("-----BEGIN"):
            return certificate_key_hash(text)
        decode_key_hash(text)
    except UserError as error:
        raise invalid(error.what) from None
    return text


def _duration(value: object) -> int:
    """Accept ``90 days``, ``59d``, ``1 year 2 weeks``; and seconds, as this returns them."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    text = _text(value).strip()
    if not _DURATION.fullmatch(text):
        raise invalid(f"got {text[:40]!r}, expected a duration such as 90 days, 12h or 1 year")
    total = 0
    for count, unit in re.findall(r"([0-9]+) *([a-zA-Z]+)", text):
        if unit not in _SECONDS:
            raise invalid(f"got the unit {unit[:20]!r}, expected s, m, h, d, w, months or years")
        total += int(count) * _SECONDS[unit]
    if not 0 < total <= _MAX_DURATION:
        raise invalid("the duration must be above zero and at most 2000 years")
    return total


def _directory(value: object) -> str:
    """Accept a mount point: a path that may end with a slash."""
    text = _no_nul(value)
    return _path(text.rstrip("/") or "/")


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise invalid("expected true or false, without quotes")
    return value


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise invalid("expected a list")
    return tuple(value)


def _schema(pattern: str, *, scalar: bool = True) -> WithJsonSchema:
    # YAML takes unquoted digits for numbers, which the language takes for text.
    return WithJsonSchema({"type": ["string", "number"] if scalar else "string", "pattern": pattern})


_ELEMENT_PATTERN = rf"[A-Za-z0-9_.~-]{{1,{MAX_NAME}}}"
_TEXT = WithJsonSchema({"type": ["string", "number"]})

Name = Annotated[str, BeforeValidator(_element), _schema(f"^{_ELEMENT_PATTERN}$")]
SessionName = Annotated[str, BeforeValidator(_session_name), _schema(f"^(/|{_ELEMENT_PATTERN}(/{_ELEMENT_PATTERN})*)$")]
Version = Annotated[str, BeforeValidator(_version), _schema(f"^{_VERSION.pattern}$")]
Digest = Annotated[
    str, BeforeValidator(lambda value: _hex(value, digits=64, what="32 bytes")), _schema("^[0-9a-fA-F]{64}$")
]
Bytes16 = Annotated[
    str, BeforeValidator(lambda value: _hex(value, digits=32, what="16 bytes")), _schema("^[0-9a-fA-F]{32}$")
]
Text = Annotated[str, BeforeValidator(_text), _TEXT]
Path = Annotated[str, BeforeValidator(_path), _schema("^/", scalar=False)]
Directory = Annotated[str, BeforeValidator(_directory), _schema("^/", scalar=False)]
Permission = Annotated[int, BeforeValidator(_mode), WithJsonSchema({"type": ["string", "integer"]})]
Count = Annotated[int, BeforeValidator(_count), WithJsonSchema({"type": "integer", "minimum": 0})]
Duration = Annotated[int, BeforeValidator(_duration), _schema(f"^{_DURATION.pattern}$", scalar=False)]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
Arguments = Annotated[
    tuple[str, ...],
    BeforeValidator(_arguments),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "number"]}}]}),
]
Environment = Annotated[
    dict[str, str],
    BeforeValidator(_environment),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": ["string", "number"]}}),
]
KeyHash = Annotated[str, BeforeValidator(key_hash), _schema("", scalar=False)]
as_list = BeforeValidator(_list)
text = _text
session_name = _session_name
