"""CBOR (RFC 8949) in its deterministic form, as far as evidence in certificates uses it.

Unsigned integers, byte and text strings, arrays, maps and tags; shortest heads, definite lengths, each key once.
"""

from __future__ import annotations

from dataclasses import dataclass

from sconify.errors import UntrustedDataError

_UNSIGNED, _BYTES, _TEXT, _ARRAY, _MAP, _TAG = 0, 2, 3, 4, 5, 6
_MAX_DEPTH = 8
_SMALLEST = {24: (1, 24), 25: (2, 1 << 8), 26: (4, 1 << 16), 27: (8, 1 << 32)}
"""By the head's low bits: how many bytes the argument has, and the smallest value that needs so many."""


@dataclass(frozen=True)
class Tagged:
    """A value with a tag."""

    tag: int
    value: object


def decode(data: bytes) -> object:
    """Return the one value that the data is: ``int``, ``bytes``, ``str``, ``list``, ``dict`` or ``Tagged``.

    Raises:
        UntrustedDataError: It is none, not in its shortest form, uses another type, or something stands behind it.
    """
    value, end = _decode(data, 0, 0)
    if end != len(data):
        raise UntrustedDataError(f"CBOR: {len(data) - end} bytes stand behind the value")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[object, int]:
    if depth > _MAX_DEPTH:
        raise UntrustedDataError(f"CBOR: nested deeper than {_MAX_DEPTH} levels")
    major, argument, at = _head(data, at)
    match major:
        case 0:
            return argument, at
        case 2 | 3:
            content = data[at : at + argument]
            if len(content) != argument:
                raise UntrustedDataError("CBOR: the data ends within a string")
            return (content if major == _BYTES else _text(content)), at + argument
        case 4:
            values: list[object] = []
            for _ in range(argument):
                value, at = _decode(data, at, depth + 1)
                values.append(value)
            return values, at
        case 5:
            return _map(data, at, argument, depth)
        case 6:
            value, at = _decode(data, at, depth + 1)
            return Tagged(argument, value), at
    raise UntrustedDataError(f"CBOR: got a value of major type {major}, which evidence has not")


def _map(data: bytes, at: int, size: int, depth: int) -> tuple[dict[object, object], int]:
    found: dict[object, object] = {}
    for _ in range(size):
        key, at = _decode(data, at, depth + 1)
        if not isinstance(key, str | int) or key in found:
            raise UntrustedDataError("CBOR: a key of a map is no text, or is given twice")
        found[key], at = _decode(data, at, depth + 1)
    return found, at


def _head(data: bytes, at: int) -> tuple[int, int, int]:
    if at >= len(data):
        raise UntrustedDataError("CBOR: the data ends within a value")
    major, low = data[at] >> 5, data[at] & 0x1F
    at += 1
    if low < 24:
        return major, low, at
    if low not in _SMALLEST:
        raise UntrustedDataError("CBOR: a value has no definite length")
    size, smallest = _SMALLEST[low]
    encoded = data[at : at + size]
    argument = int.from_bytes(encoded)
    if len(encoded) != size or argument < smallest:
        raise UntrustedDataError("CBOR: a value is not in its shortest form, or the data ends within it")
    return major, argument, at + size


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UntrustedDataError("CBOR: a text is no UTF-8") from None
