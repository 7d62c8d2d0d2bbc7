"""Members of evidence as JSON: each has one spelling, and none is missing or unknown."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection

from sconify.errors import UntrustedDataError


class Members:
    """The members of an object that is evidence of one kind and version.

    Args:
        data: What was sent.
        kind: The evidence's kind.
        version: Its version.
        names: The members that it has besides ``kind`` and ``version``.

    Raises:
        UntrustedDataError: It is no object, of another kind or version, or a member is missing or unknown.
    """

    def __init__(self, data: object, *, kind: str, version: int, names: Collection[str]) -> None:
        self._what = f"{kind} evidence"
        if not isinstance(data, dict):
            raise UntrustedDataError(f"{self._what}: got {type(data).__name__}, expected an object")
        expected = {"kind", "version", *names}
        for name in sorted(expected - data.keys()):
            raise UntrustedDataError(f'{self._what}: member "{name}" is missing')
        if len(data) != len(expected):
            raise UntrustedDataError(f"{self._what}: it has members that this version does not know")
        self._data = data
        self.require("kind", kind)
        self.require("version", version)

    def require(self, name: str, expected: object) -> None:
        """Make sure that a member has a value of that very type."""
        if type(self._data[name]) is not type(expected) or self._data[name] != expected:
            raise UntrustedDataError(f'{self._what}: member "{name}" is not {expected!r}')

    def integer(self, name: str, *, largest: int) -> int:
        """Return a member that is a number from 0."""
        value = self._data[name]
        if type(value) is not int or not 0 <= value <= largest:
            raise UntrustedDataError(f'{self._what}: member "{name}" is no number from 0 to {largest}')
        return value

    def hex(self, name: str, size: int) -> bytes:
        """Return a member that is so many bytes in lower-case hex digits."""
        text = self._data[name]
        if isinstance(text, str) and len(text) == 2 * size and text == text.lower():
            try:
                return binascii.unhexlify(text)
            except ValueError:
                pass
        raise UntrustedDataError(f'{self._what}: member "{name}" is not {2 * size} lower-case hex digits')

    def base64url(self, name: str, *, size: int | None = None, largest: int | None = None) -> bytes:
        """Return a member that is bytes in base64url without padding.

        Args:
            name: The member.
            size: How many bytes it must have.
            largest: How many bytes it may have.
        """
        text = self._data[name]
        limit = size if size is not None else largest or 0
        if isinstance(text, str) and len(text) <= (4 * limit + 2) // 3:
            try:
                raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            except ValueError:
                raw = None
            # Base64 leaves spare bits in the last digit: only one spelling is the evidence.
            if raw is not None and base64url(raw) == text and (size is None or len(raw) == size):
                return raw
        how_many = f"{size} bytes" if size is not None else f"at most {limit} bytes"
        raise UntrustedDataError(f'{self._what}: member "{name}" is not {how_many} in base64url without padding')


def base64url(data: bytes) -> str:
    """Return bytes in base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
