"""Placeholders ``$$SCONE::NAME[:FORMAT][|ENCODING]$$``: where the value of a secret goes in a text.

They may stand in commands, environments and injected files. Text is read once from left to right; what a secret's value
holds is never read again. So a text that must hold a literal ``$$SCONE::`` writes its first two characters as a
placeholder of a secret whose value is ``$$`` (``escape``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sconify.errors import UserError
from sconify.policy.formats import FORMATS, SUFFIXES, Format, SecretValue, format_names
from sconify.policy.secret import SecretKind

_START = "$$SCONE::"
_PLACEHOLDER = re.compile(r"\$\$SCONE::([A-Za-z0-9_.~-]+)((?::[a-z0-9-]+)*)(\|escape\(json\))?\$\$")


@dataclass(frozen=True, kw_only=True)
class Placeholder:
    """A placeholder in a text.

    Attributes:
        start: Where it begins, in characters.
        end: Where it ends.
        secret: The name of the secret.
        format: The name of the format (``formats.FORMATS``).
        json: Whether the value is escaped as the inside of a JSON string.
    """

    start: int
    end: int
    secret: str
    format: str
    json: bool


def check(text: str, *, secrets: Mapping[str, SecretKind | None], raw: bool) -> None:
    """Check that every placeholder names a secret, in a format that its kind has.

    Args:
        text: The text with placeholders.
        secrets: The kinds of the secrets by name; None: not known before it is imported.
        raw: Whether raw bytes may be inserted here (injected files: yes; arguments and environment: no).

    Raises:
        UserError: A placeholder is malformed, names no secret, or has a format that does not fit.
    """
    for placeholder in placeholders(text, secrets):
        kind = secrets[placeholder.secret]
        if kind is not None:
            _format(placeholder, kind, raw=raw)


def substitute(text: str, *, secrets: Mapping[str, SecretValue], raw: bool = True) -> bytes:
    """Replace every placeholder by the value of its secret.

    Args:
        text: Text that ``check`` has passed.
        secrets: The values by name.
        raw: Whether raw bytes may be inserted here.

    Returns:
        The text in UTF-8 with the values in it.

    Raises:
        UserError: As ``check``; or a value is not there in the form that is asked for.
    """
    if _START not in text:
        return text.encode()
    parts: list[bytes] = []
    position = 0
    for placeholder in placeholders(text, secrets):
        secret = secrets[placeholder.secret]
        form = _format(placeholder, secret.kind, raw=raw)
        try:
            value = form.encode(secret)
        except UserError as error:
            raise UserError(f"placeholder of secret {placeholder.secret}: {error.what}", remedy=error.remedy) from None
        if placeholder.json:
            value = json.dumps(value.decode(), ensure_ascii=False)[1:-1].encode()
        parts += [text[position : placeholder.start].encode(), value]
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


def placeholders(text: str, secrets: Mapping[str, object]) -> list[Placeholder]:
    """Return the placeholders of a text in their order.

    Args:
        text: The text.
        secrets: The names of the secrets.

    Raises:
        UserError: One is malformed, or names no secret.
    """
    found: list[Placeholder] = []
    position = text.find(_START)
    while position >= 0:
        match = _PLACEHOLDER.match(text, position)
        if match is None:
            raise UserError("malformed placeholder: expected $$SCONE::NAME$$ or $$SCONE::NAME:FORMAT$$")
        name, form = match[1], match[2].removeprefix(":")
        if name not in secrets and not form:
            suffix = next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")
            name, form = name.removesuffix(suffix), suffix
        if name not in secrets:
            raise UserError(f"placeholder of secret {match[1]}: the session has no such secret")
        place = {"start": position, "end": match.end()}
        found.append(Placeholder(secret=name, format=form, json=match[3] is not None, **place))
        position = text.find(_START, match.end())
    return found


def _format(placeholder: Placeholder, kind: SecretKind, *, raw: bool) -> Format:
    shown = f"placeholder of {kind} secret {placeholder.secret}"
    form = FORMATS[kind].get(placeholder.format)
    if form is None:
        if kind == "config-fragment":
            raise UserError(f"{shown}: a fragment stands for parts of the session's configuration only")
        got = f"format {placeholder.format}" if placeholder.format else "no format"
        raise UserError(f"{shown}: got {got}, expected {_one_of(kind)}")
    if form.raw and placeholder.json:
        raise UserError(f"{shown}: raw bytes can't be escaped as JSON")
    if form.raw and not raw:
        text = next((name for name, other in FORMATS[kind].items() if name and not other.raw), "")
        raise UserError(
            f"{shown}: raw bytes can't stand in arguments or the environment",
            remedy=f"write $$SCONE::{placeholder.secret}:{text}$$",
        )
    return form


def _one_of(kind: SecretKind) -> str:
    names = format_names(kind)
    return names if names == "none" else f"one of {names}"
