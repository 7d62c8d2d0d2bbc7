"""The state of a volume as a person writes it: ``COUNTER:ROOT``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from sconify.errors import UserError

_STATE = re.compile(r"([1-9][0-9]{0,18}):([0-9a-fA-F]{64})")


@dataclass(frozen=True)
class VolumeState:
    """One state of a volume. Not a secret.

    Attributes:
        counter: The number of the commit.
        root: The Merkle root, 32 bytes.
    """

    counter: int
    root: bytes

    @classmethod
    def parse(cls, text: str, *, flag: str) -> Self:
        """Read ``COUNTER:ROOT``.

        Raises:
            UserError: If it has another form.
        """
        match = _STATE.fullmatch(text)
        if match is None:
            raise UserError(
                f"{flag}={text} is no state of a volume: expected COUNTER:ROOT with 64 hex digits",
                remedy="take it from `sconify volume inspect`",
            )
        return cls(int(match[1]), bytes.fromhex(match[2]))

    def __str__(self) -> str:
        return f"{self.counter}:{self.root.hex()}"
