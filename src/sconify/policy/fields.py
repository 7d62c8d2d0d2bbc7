"""The types of single values of the session language."""

from __future__ import annotations

import posixpath
import re
import shlex
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from sconify.errors import UserError
from sconify.policy.document import Number
from sconify.policy.keyhash import certificate_key_hash, decode_key_hash

MAX_NAME = 128
MAX_SESSION_NAME = 512
_ELEMENT = re.compile(rf"[A-Za-z0-9_.~-]{{1,{MAX_NAME}}}")
_VERSION = re.compile(r"0\.3(\.[0-9]{1,2})?")
_MODE = re.compile(r"0o[0-7]{1,3}")


def invalid(message: str) -> PydanticCustomError:
    """Return the error of a value that is not as the language demands; the message must not show secrets."""
    return PydanticCustomError("session", "{message}", {"message": message})


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


def _one_or_more(value: object) -> object:
    """Accept a list, or a single element in place of a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _list(value: object) -> object:
    if not isinstance(value, list | tuple):
        raise invalid("expected a list")
    return tuple(value)


Name = Annotated[str, BeforeValidator(_element)]
SessionName = Annotated[str, BeforeValidator(_session_name)]
Version = Annotated[str, BeforeValidator(_version)]
Digest = Annotated[str, BeforeValidator(lambda value: _hex(value, digits=64, what="32 bytes"))]
Bytes16 = Annotated[str, BeforeValidator(lambda value: _hex(value, digits=32, what="16 bytes"))]
Text = Annotated[str, BeforeValidator(_text)]
Path = Annotated[str, BeforeValidator(_path)]
Permission = Annotated[int, BeforeValidator(_mode)]
Count = Annotated[int, BeforeValidator(_count)]
Arguments = Annotated[tuple[str, ...], BeforeValidator(_arguments)]
Environment = Annotated[dict[str, str], BeforeValidator(_environment)]
KeyHash = Annotated[str, BeforeValidator(key_hash)]
as_list = BeforeValidator(_list)
one_or_more = BeforeValidator(_one_or_more)
