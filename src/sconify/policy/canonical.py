"""Canonical JSON: the one byte form of a value that is hashed or signed (docs/protocol.md)."""

from __future__ import annotations

import json

from sconify.errors import BugError


def canonical_json(value: object) -> bytes:
    """Encode a value so that equal values give equal bytes.

    Keys are sorted by code point, there is no white space and no escaping beyond what JSON demands. Floats and null
    have no place in it: they have no single spelling, or would make an absent member look like a present one.

    Args:
        value: Objects with string keys, lists or tuples, strings, integers and booleans.

    Returns:
        UTF-8 bytes.

    Raises:
        BugError: The value holds something else.
    """
    _check(value)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _check(value: object) -> None:
    if isinstance(value, dict):
        for key, member in value.items():
            if not isinstance(key, str):
                raise BugError(f"canonical JSON: a key is of type {type(key).__name__}, expected a string")
            _check(member)
    elif isinstance(value, list | tuple):
        for member in value:
            _check(member)
    elif not isinstance(value, str | int):
        raise BugError(f"canonical JSON: got a value of type {type(value).__name__}")
