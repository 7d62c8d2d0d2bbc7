"""Sections of a policy in files of their own: what ``--secrets`` and ``--injectedfiles`` name.

Such a file is YAML: the section with its key (``secrets:``, ``injection_files:``), indented or not, or its list alone.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from sconify.errors import UserError
from sconify.policy.document import Number, parse_document

_PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_/.-]*")
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def parse_section(text: str, *, key: str, source: str) -> list[object]:
    """Read one section.

    Args:
        text: The YAML text.
        key: The section's key.
        source: Where the text is from, for messages.

    Returns:
        Its entries, as ``document.parse_document`` gives them. Whether they are right is the session's to say.

    Raises:
        UserError: The text is no YAML, or neither that section nor a list.
    """
    try:
        data = parse_document(textwrap.dedent(text)).data
    except UserError as error:
        raise UserError(f"{source}: {error.what}", remedy=f"mend {source}") from None
    if isinstance(data, dict) and list(data) == [key]:
        data = data[key]
    if data is None:
        return []
    if not isinstance(data, list):
        raise UserError(
            f"{source} is no section {key!r}: expected `{key}:` and a list below it, and nothing else",
            remedy=f"begin {source} with the line `{key}:`",
        )
    return data


def section_yaml(entries: Sequence[object]) -> str:
    """Return entries as a YAML block list, text in quotes wherever it could be taken for something else."""
    text: str = yaml.dump(
        list(entries), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=1 << 20
    )
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _number(dumper: yaml.SafeDumper, number: Number) -> yaml.Node:
    # With the tag that a resolver gives it by itself, a scalar is written plain, as it was spelled.
    tag = dumper.resolve(yaml.ScalarNode, number.source, (True, False))  # type: ignore[no-untyped-call]
    return dumper.represent_scalar(tag, number.source)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    plain = _PLAIN.fullmatch(text) is not None and text.lower() not in _NOT_TEXT
    # A block keeps exactly one line end; what else ends a text, quotes keep, whatever stands below it.
    block = "\n" in text and text.endswith("\n") and not text.endswith("\n\n")
    style = None if plain else "|" if block else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(Number, _number)
_Dumper.add_representer(str, _text)
