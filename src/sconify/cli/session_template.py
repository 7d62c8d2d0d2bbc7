"""Variables of session files: ``$NAME`` and ``${NAME}`` are replaced on the client, before the session is parsed.

Placeholders of the CAS, ``$$SCONE::name$$``, are none of these: ``$$`` stands for itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from sconify.errors import UserError
from sconify.policy.document import Mark, parse_document

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_PLACE = re.compile(rf"\$\$|\$\{{({_NAME})\}}|\$({_NAME})")


def parse_variables(texts: Iterable[str]) -> dict[str, str]:
    """Read ``-e NAME=VALUE`` options; a later one wins.

    Raises:
        UserError: One of them has not this form.
    """
    variables = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not re.fullmatch(_NAME, name):
            # The value may be a secret, so it is not shown.
            raise UserError(f"-e {name if not separator else name + '=…'} is no variable", remedy="give -e NAME=VALUE")
        variables[name] = value
    return variables


def fill_in(text: str, variables: Mapping[str, str]) -> str:
    """Return a session's text with its variables replaced.

    Args:
        text: The text with variables.
        variables: Their values.

    Raises:
        UserError: A variable has no value; the message names its place.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name is None:
            return match[0]
        if name not in variables:
            line = text.count("\n", 0, match.start()) + 1
            column = match.start() - (text.rfind("\n", 0, match.start()) + 1) + 1
            where = _key_at(text, Mark(line, column))
            raise UserError(
                f"{where}Value for variable ${name} is missing at line {line} column {column}",
                remedy=f"give -e {name}=VALUE, or --use-env",
            )
        return variables[name]

    return _PLACE.sub(value, text)


def _key_at(text: str, mark: Mark) -> str:
    """Return the keys that lead to a place, for a message; nothing if the text is no YAML before it is filled in."""
    try:
        path = parse_document(text).path_at(mark)
    except UserError:
        return ""
    shown = "".join(f"[{element}]" if isinstance(element, int) else f".{element}" for element in path).lstrip(".")
    return f"{shown}: " if shown else ""
