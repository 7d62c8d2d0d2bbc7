from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sconify.cas.audit import AuditLog
from sconify.cas.audit_verification import VerifiedLog, verify_audit_log
from sconify.cas.console.chain import Chain
from sconify.cas.keys import CasKey, load_cas_key
from sconify.cas.master_key import FileMasterKey
from sconify.cas.store import Store
from sconify.errors import ServiceError, UntrustedDataError

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@pytest.fixture
def cas_key(tmp_path: Path) -> CasKey:
    store = Store(tmp_path / "state", master_key=FileMasterKey(tmp_path / "key"))
    key = load_cas_key(store)
    store.close()
    return key


@pytest.fixture
def open_log(tmp_path: Path, cas_key: CasKey) -> Callable[[], AuditLog]:
    return lambda: AuditLog(tmp_path / "audit.jsonl", signing_key=KEY, cas_key=cas_key)


def verify(path: Path, *, cas_key: str | None = None, head: str | None = None) -> VerifiedLog:
    with path.open("rb") as file:
        return verify_audit_log(file, cas_key=cas_key, head=head)


def test_events_are_lines_of_json_whoever_writes_them(
    tmp_path: Path, open_log: Callable[[], AuditLog], cas_key: CasKey
) -> None:
    logs = [open_log() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(lambda number: logs[number % 4].record("event", number=number, text='"\n\u2028' * 100), range(200))
        )
    events = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert sorted(event["number"] for event in events[1:]) == list(range(200))
    assert (tmp_path / "audit.jsonl").stat().st_mode & 0o777 == 0o600
    verified = verify(tmp_path / "audit.jsonl", cas_key=cas_key.key_hash)
    assert verified.lines == 201
    assert verify(tmp_path / "audit.jsonl", head=verified.head) == verified


def test_an_event_that_can_not_be_written_is_an_error(cas_key: CasKey) -> None:
    with pytest.raises(ServiceError, match="No space left"):
        AuditLog(Path("/dev/full"), signing_key=KEY, cas_key=cas_key)


def test_a_log_goes_on_where_it_was_and_a_torn_line_is_dropped(
    tmp_path: Path, open_log: Callable[[], AuditLog]
) -> None:
    log = open_log()
    log.record("one", generation=7)
    log.record("two")
    log.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"seq": 4, "ti')
    again = open_log()
    assert (again.position, again.generation) == (3, 7)
    again.record("three")
    for _ in range(300):
        again.record("long" * 100)
    assert open_log().generation == 7
    assert verify(tmp_path / "audit.jsonl").lines == 304


def changed(lines: list[bytes], how: str) -> list[bytes]:
    match how:
        case "changed":
            return [*lines[:2], lines[2].replace(b'"event": "event"', b'"event": "other"'), *lines[3:]]
        case "left out":
            return [*lines[:2], *lines[3:]]
        case "moved":
            return [lines[0], lines[2], lines[1], *lines[3:]]
        case "put in twice":
            return [*lines[:3], lines[2], *lines[3:]]
        case "first left out":
            return lines[1:]
        case "cut off":
            return [*lines[:-1], lines[-1][:-5]]
        case "other key":
            return [lines[0].replace(KEY.public_key().public_bytes_raw().hex().encode(), b"00" * 32), *lines[1:]]
        case _:
            return []


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("changed", "line 3: its signature"),
        ("left out", "line 3: it does not follow"),
        ("moved", "line 2: it does not follow"),
        ("put in twice", "line 4: it does not follow"),
        ("first left out", "line 1: it is not the first"),
        ("cut off", "line 6: it is no line"),
        ("other key", "line 1: no CAS key vouches"),
        ("emptied", "empty"),
    ],
)
def test_whatever_is_done_to_a_log_is_noticed(
    tmp_path: Path, open_log: Callable[[], AuditLog], how: str, why: str
) -> None:
    log = open_log()
    for number in range(5):
        log.record("event", number=number)
    lines = changed((tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True), how)
    with pytest.raises(UntrustedDataError, match=why):
        verify_audit_log(lines, cas_key=None)


def test_a_shorter_log_is_noticed_by_who_has_seen_its_end(tmp_path: Path, open_log: Callable[[], AuditLog]) -> None:
    log = open_log()
    log.record("event")
    head = verify(tmp_path / "audit.jsonl").head
    lines = (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)
    with pytest.raises(UntrustedDataError, match="missing at its end"):
        verify_audit_log(lines[:-1], cas_key=None, head=head)
    log.record("more")
    assert verify(tmp_path / "audit.jsonl", head=head).lines == 3


def test_a_log_of_another_cas_is_refused(tmp_path: Path, open_log: Callable[[], AuditLog]) -> None:
    open_log().record("event")
    with pytest.raises(UntrustedDataError, match="line 1: the log is that of the CAS"):
        verify(tmp_path / "audit.jsonl", cas_key="somebody")


def test_a_log_that_another_key_has_signed_is_not_continued(tmp_path: Path, cas_key: CasKey) -> None:
    other = Ed25519PrivateKey.generate()
    AuditLog(tmp_path / "audit.jsonl", signing_key=other, cas_key=cas_key).close()
    with pytest.raises(ServiceError, match="not written by this CAS"):
        AuditLog(tmp_path / "audit.jsonl", signing_key=KEY, cas_key=cas_key)


def test_a_chain_is_verified_further_and_a_change_is_noticed(
    tmp_path: Path, open_log: Callable[[], AuditLog], cas_key: CasKey
) -> None:
    log, path = open_log(), tmp_path / "audit.jsonl"
    chain = Chain(path, cas_key=cas_key.key_hash)
    first = chain.state()
    assert first.complete
    assert first.verified == verify(path)
    log.record("event", number=1)
    log.record("event", number=2)
    second = chain.state()
    assert second.verified is not None
    assert second.verified.lines == 3
    log.record("event", number=3)
    path.write_bytes(path.read_bytes().replace(b'"number": 3', b'"number": 4'))
    third = chain.state()
    assert not third.complete
    assert third.failure is not None
    assert "line 4" in third.failure
    assert chain.state() == third


def test_a_chain_that_was_cut_is_noticed(tmp_path: Path, open_log: Callable[[], AuditLog], cas_key: CasKey) -> None:
    open_log().record("event")
    path = tmp_path / "audit.jsonl"
    chain = Chain(path, cas_key=cas_key.key_hash)
    chain.state()
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    assert "missing" in str(chain.state().failure)
    assert "CAS" in str(Chain(path, cas_key="another").state().failure)


def test_a_long_chain_is_verified_in_several_looks(
    tmp_path: Path, open_log: Callable[[], AuditLog], cas_key: CasKey
) -> None:
    log = open_log()
    for number in range(5):
        log.record("event", number=number)
    ticks = iter(range(100))
    chain = Chain(tmp_path / "audit.jsonl", cas_key=cas_key.key_hash, clock=lambda: next(ticks))
    states = [chain.state() for _ in range(4)]
    assert [state.complete for state in states] == [False, False, True, True]
