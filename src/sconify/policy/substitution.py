"""Placeholders ``$$SCONE::NAME[:FORMAT]$$``: where a secret's value goes in commands, environments and injected files.

Text is read once from left to right; what a secret's value holds is never read again. So a text that must hold a
literal ``$$SCONE::`` writes its first two characters as a placeholder of a secret whose value is ``$$`` (``escape``).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from sconify.errors import UserError

_START = "$$SCONE::"
_PLACEHOLDER = re.compile(r"\$\$SCONE::([A-Za-z0-9_.~-]+)(?::([a-z0-9]+))?\$\$")
_LEGACY_HEX = ".hex"

SecretKind: TypeAlias = Literal["ascii", "binary"]

_BINARY_FORMATS: dict[str, Callable[[bytes], bytes]] = {
    "hex": lambda data: data.hex().encode(),
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "base32": base64.b32encode,
    "base32nopad": lambda data: base64.b32encode(data).rstrip(b"="),
}
_RAW = ("", "bin")


@dataclass(frozen=True, kw_only=True)
class SecretValue:
    """The value of a secret: UTF-8 text for ``ascii``, raw bytes for ``binary``."""

    kind: SecretKind
    data: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Placeholder:
    start: int
    end: int
    secret: str
    format: str


def check(text: str, *, secrets: Mapping[str, SecretKind], raw: bool) -> None:
    """Check that every placeholder names a secret, in a format that its kind has.

    Args:
        text: The text with placeholders.
        secrets: The kinds of the secrets by name.
        raw: Whether raw bytes may be inserted here (injected files: yes; arguments and environment: no).

    Raises:
        UserError: A placeholder is malformed, names no secret, or has a format that does not fit.
    """
    for placeholder in _placeholders(text, secrets):
        kind, form = secrets[placeholder.secret], placeholder.format
        shown = f"placeholder of {kind} secret {placeholder.secret}"
        if kind == "ascii" and form:
            raise UserError(f"{shown}: got format {form}, expected none")
        if kind == "binary" and form not in _BINARY_FORMATS and form not in _RAW:
            raise UserError(f"{shown}: got format {form}, expected one of bin, {', '.join(_BINARY_FORMATS)}")
        if kind == "binary" and form in _RAW and not raw:
            raise UserError(
                f"{shown}: raw bytes can't stand in arguments or the environment",
                remedy=f"write $$SCONE::{placeholder.secret}:hex$$",
            )


def substitute(text: str, *, secrets: Mapping[str, SecretValue]) -> bytes:
    """Replace every placeholder by the value of its secret.

    Args:
        text: Text that ``check`` has passed.
        secrets: The values by name.

    Returns:
        The text in UTF-8 with the values in it.

    Raises:
        UserError: As ``check``.
    """
    if _START not in text:
        return text.encode()
    check(text, secrets={name: secret.kind for name, secret in secrets.items()}, raw=True)
    parts: list[bytes] = []
    position = 0
    for placeholder in _placeholders(text, secrets):
        secret = secrets[placeholder.secret]
        encode = _BINARY_FORMATS.get(placeholder.format, bytes)
        parts += [text[position : placeholder.start].encode(), encode(secret.data)]
        position = placeholder.end
    parts.append(text[position:].encode())
    return b"".join(parts)


def escape(text: str, *, dollars: str) -> str:
    """Return the text that gives ``text`` after substitution, whatever it holds.

    Args:
        text: Literal text.
        dollars: Name of an ascii secret whose value is ``$$``.
    """
    return text.replace(_START, f"{_START}{dollars}$$SCONE::")


def _placeholders(text: str, secrets: Mapping[str, object]) -> list[_Placeholder]:
    found: list[_Placeholder] = []
    position = text.find(_START)
    while position >= 0:
        match = _PLACEHOLDER.match(text, position)
        if match is None:
            raise UserError("malformed placeholder: expected $$SCONE::NAME$$ or $$SCONE::NAME:FORMAT$$")
        name, form = match[1], match[2] or ""
        if name not in secrets and name.endswith(_LEGACY_HEX) and not form:
            name, form = name.removesuffix(_LEGACY_HEX), "hex"
        if name not in secrets:
            raise UserError(f"placeholder of secret {match[1]}: the session has no such secret")
        found.append(_Placeholder(start=position, end=match.end(), secret=name, format=form))
        position = text.find(_START, match.end())
    return found
