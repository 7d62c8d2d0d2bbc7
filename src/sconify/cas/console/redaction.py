"""A session's text for a screen: what is secret in it is replaced by a fingerprint, so that a change still shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import yaml

from sconify.policy.session import parse_session

_ALWAYS = ("fspf_key", "one_time_password_shared_secret", "service_access_token")
_VARIABLE = re.compile(r"""["']?\$\$SCONE::[^$]+\$\$["']?""")


def redacted(text: str, *, fingerprint: Callable[[str], str]) -> str:
    """Return the text of a session without the values of its secrets, its keys and its shared secrets.

    Args:
        text: The YAML.
        fingerprint: Returns a few characters that stand for a value and do not help to guess it.

    Raises:
        UserError: The text is no session.
    """
    parse_session(text)  # which also bounds what the loader below gets
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    # An alias is the node that it stands for, so a value is hidden where it is written.
    spans = sorted({(node.start_mark.index, node.end_mark.index) for node in _secret_nodes(root)}, reverse=True)
    for start, end in spans:
        value = text[start:end]
        kept = value.rstrip()
        if kept and not _VARIABLE.fullmatch(kept):
            text = f"{text[:start]}(hidden: {fingerprint(kept)}){value[len(kept) :]}{text[end:]}"
    return text


def _secret_nodes(root: yaml.Node | None) -> Iterator[yaml.Node]:
    waiting = [root]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value in _ALWAYS:
                    yield value
                elif key.value == "secrets" and node is root:
                    yield from _values_of_secrets(value)
                else:
                    waiting.append(value)


def _values_of_secrets(section: yaml.Node) -> Iterator[yaml.Node]:
    for secret in section.value if isinstance(section, yaml.SequenceNode) else ():
        for key, value in secret.value if isinstance(secret, yaml.MappingNode) else ():
            if key.value == "value":
                yield value
