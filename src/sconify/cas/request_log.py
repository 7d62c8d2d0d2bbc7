"""What a CAS writes to its log: a line for each request, as text or as one JSON object; no header, query or body."""

from __future__ import annotations

import json
import logging
import secrets
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Final

request_id: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)
"""Names the request at hand in each line of the log and in the answer's ``X-Request-Id``."""

_MEMBERS = "sconify_members"


def begin_request() -> str:
    """Return a new request id; until the thread's next request, each line of the log has it."""
    new = secrets.token_hex(8)
    request_id.set(new)
    return new


def log_request(log: logging.Logger, **members: str | int | float | None) -> None:
    """Write the line of a request.

    Args:
        log: The logger.
        members: ``address``, ``client``, ``method``, ``path``, ``status``, ``milliseconds`` and what else there is.
    """
    text = "%(address)s %(client)s %(method)s %(path)s %(status)d %(milliseconds).1f ms" % {  # noqa: UP031
        **members,
        "client": members.get("client") or "-",
    }
    log.info("%s %s", text, request_id.get() or "-", extra={_MEMBERS: {"event": "request", **members}})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``event``, and ``message`` or the members of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, without newline."""
        members = getattr(record, _MEMBERS, None)
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **(members if isinstance(members, dict) else {"event": "message", "message": record.getMessage()}),
            "request_id": request_id.get(),
        }
        return json.dumps({name: value for name, value in line.items() if value is not None})


def configure(*, form: str, quiet: bool) -> None:
    """Let the log of this process go to stderr.

    Args:
        form: ``text`` or ``json``.
        quiet: Whether only warnings and errors are written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter("%(asctime)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING if quiet else logging.INFO)
