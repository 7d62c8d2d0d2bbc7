"""What services did, as the end of the audit log tells it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TAIL = 8 << 20
_EVENTS = {"service attested": "attested", "service refused": "refused", "service exited": "exited"}


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One thing that a service did.

    Attributes:
        line: The number of the line in the audit log.
        time: Seconds since 1970.
        outcome: ``attested``, ``refused`` or ``exited``.
        session: The session that it named; it need not exist if it was refused.
        service: The service that it named.
        details: The rest of the line by its names.
    """

    line: int
    time: int
    outcome: str
    session: str
    service: str
    details: dict[str, object]

    def __getattr__(self, name: str) -> object:
        """Return a detail, or None: each outcome has its own."""
        return self.details.get(name)


def recent(log: Path, *, visible: Callable[[str], bool], limit: int, outcome: str | None = None) -> list[Activity]:
    """Return what services did last, the newest first.

    Args:
        log: The audit log; the last 8 MiB of it are looked at.
        visible: Tells whether the activities of a session may be shown.
        limit: How many at most.
        outcome: Only these; None: all.
    """
    with log.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        file.seek(max(0, size - _TAIL))
        lines = file.read().split(b"\n")
    # The first one may be cut; the last one is what stands behind the last newline: nothing, or a line being written.
    whole = lines[1 if size > _TAIL else 0 : -1]
    found: list[Activity] = []
    for line in reversed(whole):
        if len(found) == limit:
            break
        activity = _parse(line)
        if activity is not None and outcome in (None, activity.outcome) and visible(activity.session):
            found.append(activity)
    return found


def _parse(line: bytes) -> Activity | None:
    if b'"service ' not in line:
        return None
    try:
        record = json.loads(line)
        outcome = _EVENTS[record.pop("event")]
        session, _, service = str(record.pop("config_id")).rpartition("/")
        return Activity(
            line=int(record.pop("seq")),
            time=int(record.pop("time")),
            outcome=outcome,
            session=session,
            service=service,
            details=record,
        )
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
