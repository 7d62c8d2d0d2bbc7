"""A session's YAML text, read and edited so that the rest stays as it was written: comments, tags, numbers, order."""

from __future__ import annotations

import yaml

from sconify.errors import UserError

_REMEDY = "mend the session file"


def session_name(text: str) -> str:
    """Return the ``name`` of a session.

    Raises:
        UserError: The text is no YAML mapping with a ``name``.
    """
    node = _entry(_mapping(text), "name")
    if not isinstance(node, yaml.ScalarNode) or not node.value:
        raise UserError("the session has no name", remedy="give it one: `name: NAMESPACE/SESSION`")
    name: str = node.value
    return name


def with_predecessor(text: str, session_hash: str) -> str:
    """Return a session's text with ``predecessor`` set: the hash of the version that it replaces, 64 hex digits.

    Raises:
        UserError: The text is no YAML mapping.
    """
    root = _mapping(text)
    node = _entry(root, "predecessor")
    if node is not None:
        start, end = node.start_mark.index, node.end_mark.index
        # An empty value has no width, and stands right behind the colon.
        return f'{text[:start]}{" " if start == end else ""}"{session_hash}"{text[end:]}'
    first = root.value[0][0].start_mark
    behind = ", " if root.flow_style else "\n" + " " * first.column
    return f'{text[: first.index]}"predecessor": "{session_hash}"{behind}{text[first.index :]}'


def _entry(root: yaml.MappingNode, key: str) -> yaml.Node | None:
    values = [value for name, value in root.value if isinstance(name, yaml.ScalarNode) and name.value == key]
    if len(values) > 1:
        raise UserError(f"the session has {key!r} more than once", remedy=_REMEDY)
    return values[0] if values else None


def _mapping(text: str) -> yaml.MappingNode:
    try:
        root = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        # The parser's own text would quote the session, which may hold secrets.
        raise UserError(f"the session is no valid YAML{where}", remedy=_REMEDY) from None
    except RecursionError:
        raise UserError("the session is nested too deeply", remedy=_REMEDY) from None
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UserError("the session is no YAML mapping", remedy="begin with `name: NAMESPACE/SESSION`")
    return root
