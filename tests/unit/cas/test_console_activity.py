from __future__ import annotations

import json
from pathlib import Path

import pytest

from sconify.cas.console import activity
from sconify.cas.console.activity import recent
from sconify.cas.console.difference import difference


def line(seq: int, event: str, config_id: str, **details: object) -> bytes:
    return (
        json.dumps({"seq": seq, "time": 1000 + seq, "event": event, "config_id": config_id, **details}).encode() + b"\n"
    )


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(
        line(1, "service attested", "team/app/web", measurement="ab", run="r1")
        + line(2, "session created", "x")
        + line(3, "service refused", "other/web", reason="check measurement")
        + line(4, "service exited", "team/app/web", run="r1", status=0, signal=None)
        + b"no json, service \n"
        + b'{"event": "service attested", "half'
    )
    return path


def test_the_newest_comes_first_and_what_is_no_line_is_passed_over(log: Path) -> None:
    found = recent(log, visible=lambda _: True, limit=10)
    assert [(entry.line, entry.outcome) for entry in found] == [(4, "exited"), (3, "refused"), (1, "attested")]
    assert (found[2].session, found[2].service, found[2].measurement) == ("team/app", "web", "ab")
    assert found[2].reason is None


def test_only_what_may_be_seen_is_returned(log: Path) -> None:
    assert [entry.line for entry in recent(log, visible=lambda session: session == "other", limit=10)] == [3]
    assert [entry.line for entry in recent(log, visible=lambda _: True, limit=10, outcome="attested")] == [1]
    assert len(recent(log, visible=lambda _: True, limit=2)) == 2


def test_of_a_long_log_the_end_is_read(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = log.read_bytes()
    monkeypatch.setattr(activity, "_TAIL", len(whole) - 10)
    assert [entry.line for entry in recent(log, visible=lambda _: True, limit=10)] == [4, 3]


def test_a_difference_has_numbers_and_leaves_out_what_is_alike() -> None:
    old = "\n".join(str(number) for number in range(40))
    new = old.replace("\n3\n", "\nthree\n").replace("\n35\n", "\n")
    lines = difference(old, new)
    assert [(entry.kind, entry.old, entry.new, entry.text) for entry in lines if entry.kind != "same"] == [
        ("removed", 4, None, "3"),
        ("added", None, 4, "three"),
        ("gap", None, None, ""),
        ("removed", 36, None, "35"),
    ]
    assert difference(old, old) == []
