"""Edit a session's YAML text so that the rest stays as it was written: comments, numbers, order."""

from __future__ import annotations

import yaml

from sconify.errors import BugError
from sconify.policy.session import parse_session


def with_predecessor(text: str, session_hash: str) -> str:
    """Return a session's text with ``predecessor`` set.

    Args:
        text: The session as YAML.
        session_hash: The hash of the version that it replaces, 64 hex digits.

    Raises:
        UserError: The text is no session.
    """
    return _with_member(text, "predecessor", session_hash)


def with_name(text: str, name: str) -> str:
    """Return a session's text under another name.

    Raises:
        UserError: The text is no session, or would be none with this name.
    """
    return _with_member(text, "name", name)


def _with_member(text: str, key: str, value: str) -> str:
    session = parse_session(text)  # which also bounds what the loader below gets
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    assert isinstance(root, yaml.MappingNode)
    node = next((value for name, value in root.value if name.value == key), None)
    if node is not None:
        start, end = node.start_mark.index, node.end_mark.index
        # An empty value has no width, and stands right behind the colon.
        result = f'{text[:start]}{" " if start == end else ""}"{value}"{text[end:]}'
    else:
        first = root.value[0][0].start_mark
        behind = ", " if root.flow_style else "\n" + " " * first.column
        result = f'{text[: first.index]}"{key}": "{value}"{behind}{text[first.index :]}'
    if parse_session(result) != session.model_copy(update={key: value}):
        raise BugError(f"the {key} could not be written into the session")
    return result
