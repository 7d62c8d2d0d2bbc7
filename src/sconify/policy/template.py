"""The session of a converted image, as text to read and to edit."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources

import jinja2

from sconify.errors import UserError
from sconify.policy import substitution
from sconify.policy.session import parse_session

_DOLLARS = "literal-dollars"
_AT = "literal-at"
_HOST_ARGUMENT = re.compile(r"@@[0-9]+")
_HOST_VARIABLE = "\\@\\@"
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}


@dataclass(frozen=True, kw_only=True)
class ConvertedService:
    """What a policy says of a converted image.

    Attributes:
        name: The session's name.
        service: The service's name.
        measurement: The measurement of the sconified binary, 64 hex digits.
        command: The argv of the program. Literal: placeholders are not looked for.
        environment: The whole environment of the program. Literal, like ``command``.
        pwd: Its working directory.
        fspf_path: Where the index of the protected file system stands in the image.
        fspf_key: The file system key, 64 hex digits.
        fspf_tag: The root tag of the index, 32 hex digits.
        tolerate: What is put up with in a platform: ``security.attestation.tolerate``.
        predecessor: The hash of the session that this one replaces; None creates it.
    """

    name: str
    service: str
    measurement: str
    command: Sequence[str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    pwd: str
    fspf_path: str
    fspf_key: str = field(repr=False)
    fspf_tag: str
    tolerate: Sequence[str] = ()
    predecessor: str | None = None


def session_text(session: ConvertedService) -> str:
    """Return the session as YAML.

    A literal ``$$SCONE::`` in the command or the environment of the native image must not become a placeholder: it is
    written with a placeholder of a secret whose value is ``$$``, so the program gets it back as it was. An argument
    ``@@1``, which would be the host's, is written with one whose value is ``@``.

    Raises:
        UserError: A name, path, argument or value can't stand in a session (such as bytes that are no UTF-8).
    """
    for name in session.environment:
        if name.startswith(_HOST_VARIABLE):
            raise UserError(
                f"the variable {name[:40]} would take its value from the host", remedy="leave it out of the image"
            )
    literals = [*session.command, *session.environment.values()]
    text = _template().render(
        session=session,
        escapes={
            _DOLLARS: "$$" if any("$$SCONE::" in literal for literal in literals) else "",
            _AT: "@" if any(_HOST_ARGUMENT.fullmatch(argument) for argument in session.command) else "",
        },
    )
    parse_session(text)
    return text


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - YAML, and every value passes through a filter
    )
    environment.filters["yaml"] = _quoted
    environment.filters["literal"] = _literal
    environment.filters["argument"] = _argument
    return environment.from_string(resources.files("sconify.policy").joinpath("session.yml").read_text("utf-8"))


def _literal(text: str) -> str:
    return _quoted(substitution.escape(text, dollars=_DOLLARS))


def _argument(text: str) -> str:
    if _HOST_ARGUMENT.fullmatch(text):
        return _quoted(f"$$SCONE::{_AT}$${text[1:]}")
    return _literal(text)


def _quoted(text: str) -> str:
    """Return text as a double-quoted YAML scalar on one line."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            "an argument, variable or path of the image holds bytes that are no UTF-8",
            remedy="set it with --command or --env",
        ) from None
    return '"' + "".join(_ESCAPES.get(character) or _printable(character) for character in text) + '"'


def _printable(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\U{ord(character):08x}"
