from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sconify.cas.audit import AuditLog
from sconify.errors import ServiceError


def test_events_are_lines_of_json_whoever_writes_them(tmp_path: Path) -> None:
    logs = [AuditLog(tmp_path / "audit.jsonl") for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda number: logs[number % 4].record("event", number=number, text='"\n\u2028' * 100), range(200))
        )
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sorted(event["number"] for event in events) == list(range(200))
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600


def test_an_event_that_can_not_be_written_is_an_error() -> None:
    with pytest.raises(ServiceError, match="No space left"):
        AuditLog(Path("/dev/full")).record("event")
