"""YAML text to plain data, with the line and column of everything.

The language is YAML 1.2's core schema: only ``null``, ``true``, ``false`` and numbers are more than text (so ``no``
and dates are text), numbers keep their spelling, keys are text. Anchors and aliases are allowed; tags (but ``!cas``),
merge keys, duplicate keys and several documents are not. Sizes are bounded before anything is expanded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from sconify.errors import BugError, UserError

MAX_BYTES = 1 << 20
_MAX_DEPTH = 32
_MAX_WEIGHT = 4 << 20  # characters and nodes after the expansion of aliases

_STORE_TAG = "!cas"

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_CONSTANTS = {"": None, "~": None, "null": None, "Null": None, "NULL": None} | dict.fromkeys(
    ("true", "True", "TRUE"), True
)
_FALSE = ("false", "False", "FALSE")


@dataclass(frozen=True)
class Number:
    """A number as it is spelled: ``1.10`` stays ``1.10``."""

    source: str


@dataclass(frozen=True)
class Mark:
    """A place in the text; line and column count from 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass
class _Node:
    value: object
    mark: Mark
    weight: int
    members: dict[str | int, _Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)


@dataclass(frozen=True)
class Document:
    """Plain data and where each part of it stands.

    Attributes:
        data: Dicts with text keys, lists, text, ``Number``, booleans and None.
        top: Where the top-level mapping begins, as an offset in characters, and whether it is in flow style (``{}``).
    """

    data: object
    top: tuple[int, bool]
    _root: _Node

    def mark(self, path: tuple[str | int, ...]) -> Mark:
        """Return the place of the value at a path, or of its nearest parent.

        Args:
            path: Keys and indices; elements that do not exist in the text are passed over.
        """
        node = self._root
        for element in path:
            node = node.members.get(element, node)
        return node.mark

    def path_at(self, place: Mark) -> tuple[str | int, ...]:
        """Return the path of the value in which a place of the text is: the last one that begins at or before it."""
        path: list[str | int] = []
        node = self._root
        while node.members:
            before = [
                (member.mark.line, member.mark.column, element)
                for element, member in node.members.items()
                if (member.mark.line, member.mark.column) <= (place.line, place.column)
            ]
            if not before:
                break
            _, _, element = max(before, key=lambda found: found[:2])
            path.append(element)
            node = node.members[element]
        return tuple(path)

    def key_mark(self, path: tuple[str | int, ...], key: str) -> Mark:
        """Return the place of a key of the mapping at a path."""
        node = self._root
        for element in path:
            node = node.members.get(element, node)
        return node.keys.get(key, node.mark)


def parse_document(text: str) -> Document:
    """Parse YAML text.

    Args:
        text: The text; at most ``MAX_BYTES`` in UTF-8.

    Raises:
        UserError: It is no YAML, or uses what this module refuses; the message gives line and column.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise UserError(f"the text is larger than {MAX_BYTES} bytes")
    try:
        return _Builder().build(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise UserError(f"{place}not YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeEncodeError):
        raise UserError("not YAML: it holds characters that YAML does not allow") from None


class _Builder:
    """Builds the tree from parser events, without recursion, so that depth and size are bounded as they grow."""

    def __init__(self) -> None:
        self._anchors: dict[str, _Node] = {}
        self._open: list[tuple[_Node, str | None]] = []
        self._key: list[tuple[str, Mark] | None] = []
        self._root: _Node | None = None
        self._top = (0, False)

    def build(self, text: str) -> Document:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            self._take(event)
        if self._root is None:
            raise UserError("the text is empty")
        return Document(self._root.value, self._top, self._root)

    def _take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.AliasEvent):
            mark = _mark(event)
            target = self._anchors.get(event.anchor or "")
            if target is None:
                raise UserError(
                    f"{mark}: an alias (text that begins with *) has no finished anchor before it; write text in quotes"
                )
            self._place(_Node(target.value, mark, target.weight, target.members, target.keys))
        elif isinstance(event, yaml.ScalarEvent):
            mark = _mark(event)
            if event.tag == _STORE_TAG and not event.value:
                self._finish(_Node(_STORE_TAG, mark, 1), event.anchor)  # `store_in: !cas`, the one tag of the language
                return
            _refuse_tag(event, mark)
            if self._expects_key():
                self._key[-1] = (event.value, mark)
                return
            value = _resolve(event.value) if event.implicit[0] else event.value
            self._finish(_Node(value, mark, 1 + len(event.value)), event.anchor)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._start(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            node, anchor = self._open.pop()
            self._key.pop()
            self._finish(node, anchor)

    def _start(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent) -> None:
        mark = _mark(event)
        _refuse_tag(event, mark)
        if self._root is not None:
            raise UserError(f"{mark}: a second document begins here, expected one")
        if self._expects_key():
            raise UserError(f"{mark}: a key is a list or mapping, expected text")
        if len(self._open) >= _MAX_DEPTH:
            raise UserError(f"{mark}: nested deeper than {_MAX_DEPTH} levels")
        if not self._open:
            self._top = (_start(event).index, bool(event.flow_style))
        mapping = isinstance(event, yaml.MappingStartEvent)
        self._open.append((_Node({} if mapping else [], mark, 1), event.anchor))
        self._key.append(None)

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1][0].value, dict) and self._key[-1] is None

    def _finish(self, node: _Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        self._place(node)

    def _place(self, node: _Node) -> None:
        if not self._open:
            if self._root is not None:
                raise UserError(f"{node.mark}: a second document begins here, expected one")
            self._root = node
            return
        parent = self._open[-1][0]
        parent.weight += node.weight
        if sum(open_node.weight for open_node, _ in self._open) > _MAX_WEIGHT:
            raise UserError(f"{node.mark}: larger than {_MAX_WEIGHT} characters after its aliases are expanded")
        if isinstance(parent.value, list):
            parent.members[len(parent.value)] = node
            parent.value.append(node.value)
            return
        key = self._key[-1]
        if not isinstance(parent.value, dict) or key is None:
            raise UserError(f"{node.mark}: an alias can't be a key")
        name, mark = key
        if name in parent.value:
            raise UserError(f"{mark}: a key is given twice, first at {parent.keys[name]}")
        parent.value[name] = node.value
        parent.members[name] = node
        parent.keys[name] = mark
        parent.weight += len(name)
        self._key[-1] = None


def _mark(event: yaml.Event) -> Mark:
    start = _start(event)
    return Mark(start.line + 1, start.column + 1)


def _start(event: yaml.Event) -> Any:
    if event.start_mark is None:
        raise BugError("a YAML event has no place")
    return event.start_mark


def _refuse_tag(event: yaml.NodeEvent, mark: Mark) -> None:
    if getattr(event, "tag", None) == "!akv":
        raise UserError(f"{mark}: !akv is for Azure only, which this CAS does not support", remedy="use !cas")
    if getattr(event, "tag", None) is not None:
        raise UserError(f"{mark}: tags (such as !!str) are not part of the language", remedy="leave the tag out")


def _resolve(text: str) -> object:
    """Return what a plain scalar means in the core schema of YAML 1.2."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text in _FALSE:
        return False
    if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
        return Number(text)
    return text
