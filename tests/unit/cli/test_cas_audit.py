"""The exit codes of ``scone cas verify-audit-log``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sconify.cas.audit import AuditLog
from sconify.cas.keys import load_cas_key
from sconify.cas.master_key import FileMasterKey
from sconify.cas.store import Store
from sconify.cli.cas import cas


class Log:
    """The log of a CAS with three events."""

    def __init__(self, directory: Path) -> None:
        store = Store(directory / "state", master_key=FileMasterKey(directory / "key"))
        key = load_cas_key(store)
        store.close()
        self.key = key.key_hash
        self.path = directory / "audit.jsonl"
        log = AuditLog(self.path, signing_key=Ed25519PrivateKey.from_private_bytes(bytes(32)), cas_key=key)
        for number in range(3):
            log.record("event", number=number)
        log.close()
        self.lines = self.path.read_bytes().splitlines(keepends=True)
        self.head = self.verify()[1].rpartition(" ")[2]

    def verify(self, *options: str, key: str | None = None) -> tuple[int, str]:
        arguments = ["verify-audit-log", "-c", key or self.key, *options, str(self.path)]
        done = CliRunner().invoke(cas, arguments, catch_exceptions=False)
        return done.exit_code, done.stdout.strip()


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


def test_a_whole_log(log: Log) -> None:
    assert log.verify("--last", log.head)[0] == 0
    assert log.verify()[0] == 16
    printed = log.verify("-p", "--last", log.head)[1].splitlines()
    assert len(printed) == 5
    assert printed[1].endswith("event number=0")


@pytest.mark.parametrize(
    ("kept", "code"),
    [((0, 1, 2), 14), ((1, 2, 3), 15), ((0, 1, 3), 17), ((0, 2, 1, 3), 17), ((), 15)],
)
def test_missing_lines(log: Log, kept: tuple[int, ...], code: int) -> None:
    log.path.write_bytes(b"".join(log.lines[at] for at in kept))
    assert log.verify("--last", log.head)[0] == code


def test_another_cas_and_a_change(log: Log) -> None:
    assert log.verify(key="2wkH4kHMn2WPndf8CxmsoFkX93ouZMJUwTBFSZpDCeNeGWa7dj")[0] == 19
    record = json.loads(log.lines[2])
    record["number"] = 7
    log.path.write_bytes(b"".join([*log.lines[:2], json.dumps(record).encode() + b"\n", *log.lines[3:]]))
    assert log.verify()[0] == 20
    log.path.write_bytes(b"".join(log.lines) + b"{")
    assert log.verify()[0] == 20
