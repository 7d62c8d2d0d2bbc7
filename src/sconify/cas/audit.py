"""The audit log: what happened, one JSON object a line, without secrets. Appended, never changed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from sconify.errors import ServiceError


class AuditLog:
    """Appends events to a file; several processes may share it.

    Args:
        path: The file; made with mode 0600 if it does not exist.

    Raises:
        ServiceError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServiceError(f"the audit log {path} can't be opened: {error.strerror}") from None

    def record(self, event: str, **details: str | int | None) -> None:
        """Append an event.

        Args:
            event: What happened: ``session created``, ``service attested``, ...
            details: Names and identities; nothing secret.

        Raises:
            ServiceError: It could not be written; what it tells of must then not happen.
        """
        line = json.dumps({"time": int(time.time()), "event": event, **details}, ensure_ascii=True) + "\n"
        try:
            # One write in append mode is not mixed with those of others.
            written = os.write(self._descriptor, line.encode())
        except OSError as error:
            raise ServiceError(f"the audit log can't be written: {error.strerror}") from None
        if written != len(line):
            raise ServiceError("the audit log can't be written: the disk is full")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
