"""Two versions of a text, line by line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

_CONTEXT = 3


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a difference.

    Attributes:
        kind: ``same``, ``removed``, ``added``, or ``gap`` where lines that are alike are left out.
        old: Its number in the old text; None: it is not there.
        new: Its number in the new text; None: it is not there.
        text: The line.
    """

    kind: str
    old: int | None
    new: int | None
    text: str


def difference(old: str, new: str) -> list[Line]:
    """Return what changed with three lines around each change; nothing if the texts are equal."""
    before, after = old.splitlines(), new.splitlines()
    found: list[Line] = []
    for number, group in enumerate(
        difflib.SequenceMatcher(None, before, after, autojunk=False).get_grouped_opcodes(_CONTEXT)
    ):
        if number:
            found.append(Line(kind="gap", old=None, new=None, text=""))
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                for at, (i, j) in enumerate(zip(range(i1, i2), range(j1, j2), strict=True)):
                    found.append(Line(kind="same", old=i + 1, new=j + 1, text=before[i1 + at]))
                continue
            found += [Line(kind="removed", old=i + 1, new=None, text=before[i]) for i in range(i1, i2)]
            found += [Line(kind="added", old=None, new=j + 1, text=after[j]) for j in range(j1, j2)]
    return found
