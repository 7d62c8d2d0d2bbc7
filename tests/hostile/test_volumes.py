"""The host changes, replaces or takes back the store of a volume: the container does not start, and says why."""

from __future__ import annotations

import fcntl
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.volumes.conftest import Recorder, recorder, recorder_image

__all__ = ["recorder", "recorder_image"]

pytestmark = pytest.mark.docker

INTEGRITY = 120
CANARIES = (b"record-0", b"journal", b"directory-0")
"""Names on the volume, too long to stand in megabytes of ciphertext by chance."""


def copy(store: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(store, target)
    return target


def empty(store: Path) -> None:
    for path in store.iterdir():
        path.unlink()


def put_back(copied: Path, store: Path) -> None:
    empty(store)
    for path in copied.iterdir():
        shutil.copy(path, store)


def settled(subject: Recorder) -> None:
    """Let the CAS record the last state: a start does so, whatever was killed before."""
    subject.crash(0.2)


def test_a_store_that_was_taken_back_changed_or_exchanged_is_refused(
    recorder: Callable[[str], Recorder], tmp_path: Path
) -> None:
    subject = recorder("hostile-volume")
    other = recorder("hostile-other-volume")
    subject.crash(1)
    old = copy(subject.store, tmp_path / "old")
    subject.crash(1.5)
    settled(subject)
    new = copy(subject.store, tmp_path / "new")
    other.crash(0.5)

    attacks: tuple[tuple[str, Callable[[], None], str], ...] = (
        ("rolled back", lambda: put_back(old, subject.store), "older"),
        ("of another session", lambda: put_back(other.store, subject.store), "foreign"),
        ("missing", lambda: empty(subject.store), "no volume"),
        ("mixed", lambda: mix(old, new, subject.store), "volume"),
        ("truncated", lambda: truncate(new, subject.store), "volume"),
        ("header flipped", lambda: flip_rows(new, subject.store, "volume"), "volume"),
        ("nodes flipped", lambda: flip_rows(new, subject.store, "node"), "volume"),
    )
    for name, spoil, expected in attacks:
        spoil()
        code, log = subject.refusal()
        assert code in (INTEGRITY, 117), f"{name}: {code}\n{log}"
        assert expected in log, f"{name}:\n{log}"
        assert "data" in log, f"{name}:\n{log}"

    put_back(new, subject.store)
    found, _ = subject.crash(0)
    assert found > 0


def test_nothing_of_a_volume_is_readable_on_the_disk(recorder: Callable[[str], Recorder]) -> None:
    subject = recorder("canary-volume")
    subject.crash(1)
    for path in subject.store.iterdir():
        content = path.read_bytes()
        assert not any(canary in content for canary in CANARIES), path.name
    assert {path.name for path in subject.store.iterdir()} <= {"volume.sqlite", "volume.sqlite-wal", "volume.lock"}


def test_a_second_writer_is_refused(recorder: Callable[[str], Recorder]) -> None:
    subject = recorder("locked-volume")
    subject.crash(0)
    with (subject.store / "volume.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, log = subject.refusal()
    assert code == 117
    assert "in use" in log


def checkpointed(directory: Path, work: Path) -> Path:
    """A copy of a store whose log was written back."""
    made = copy(directory, work)
    with sqlite3.connect(made / "volume.sqlite") as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return made


def mix(old: Path, new: Path, store: Path) -> None:
    """Put the old rows of content and tree beside the new superblock."""
    old, new = checkpointed(old, store.parent / "mix-old"), checkpointed(new, store.parent / "mix-new")
    with sqlite3.connect(old / "volume.sqlite") as database:
        rows = database.execute("SELECT id, data FROM node").fetchall()
    with sqlite3.connect(new / "volume.sqlite") as database:
        database.executemany("REPLACE INTO node(id, data) VALUES (?, ?)", rows)
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    put_back(new, store)


def truncate(new: Path, store: Path) -> None:
    made = checkpointed(new, store.parent / "truncated")
    database = made / "volume.sqlite"
    with database.open("r+b") as file:
        file.truncate(database.stat().st_size // 2 // 8192 * 8192)
    for name in ("volume.sqlite-wal", "volume.sqlite-shm"):
        (made / name).unlink(missing_ok=True)
    put_back(made, store)


def flip_rows(new: Path, store: Path, table: str) -> None:
    made = checkpointed(new, store.parent / "flipped")
    with sqlite3.connect(made / "volume.sqlite") as database:
        rows = database.execute(f"SELECT id, data FROM {table}").fetchall()
        for number, data in rows:
            changed = bytearray(data)
            changed[len(changed) // 2] ^= 1
            database.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (bytes(changed), number))
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    put_back(made, store)
