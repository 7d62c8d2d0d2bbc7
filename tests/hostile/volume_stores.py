"""What a host can do to the store of a volume (docs/volume-format.md)."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

PAGE_SIZE = 8192
DATABASE, LOG, CONTENTS, LOCK = "volume.sqlite", "volume.sqlite-wal", "volume.contents", "volume.lock"
SLOT_SIZE = 16384
HEADER_SIZE = 100
"""Bytes of SQLite's own header."""


def put(source: Path, store: Path) -> None:
    """Make a store the copy of another one."""
    shutil.rmtree(store, ignore_errors=True)
    shutil.copytree(source, store)


def copy(source: Path, directory: Path) -> Path:
    """Return a copy of a store."""
    return Path(shutil.copytree(source, directory / "store"))


def put_log(source: Path, store: Path) -> None:
    """Replace the write-ahead log by that of another store, or take it away if that one has none."""
    (store / LOG).unlink(missing_ok=True)
    if (source / LOG).exists():
        shutil.copy(source / LOG, store / LOG)


def cut_log(store: Path) -> None:
    """Cut off the second half of what the write-ahead log has of the last commits, not of the file.

    The file keeps its size when the log begins anew, and has frames of an earlier time at its end then: whose salt is
    not the header's. Source: https://www.sqlite.org/fileformat2.html#the_write_ahead_log
    """
    content = (store / LOG).read_bytes()
    header, frame, salt = 32, 24 + PAGE_SIZE, content[16:24]
    ends = range(header + frame, len(content) + 1, frame)
    live = sum(1 for _ in takewhile(lambda end: content[end - frame + 8 : end - frame + 16] == salt, ends))
    assert live > 1, f"the log of {len(content)} bytes has {live} frames that count"
    (store / LOG).write_bytes(content[: header + live // 2 * frame])


@contextmanager
def rows(store: Path) -> Iterator[sqlite3.Connection]:
    """Change rows; they are in the database, and no log is there, at the end."""
    with closing(sqlite3.connect(store / DATABASE)) as database, database:
        yield database
        database.commit()
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in (LOG, "volume.sqlite-shm"):
        (store / name).unlink(missing_ok=True)


def mix(source: Path, store: Path, table: str, where: str = "TRUE") -> None:
    """Put rows of another store in the places that they have there."""
    with tempfile.TemporaryDirectory() as directory, rows(copy(source, Path(directory))) as database:
        taken = database.execute(f"SELECT id, data FROM {table} WHERE {where}").fetchall()
    with rows(store) as database:
        database.executemany(f"REPLACE INTO {table}(id, data) VALUES (?, ?)", taken)


def swap(store: Path, table: str) -> None:
    """Exchange all rows of a table in pairs."""
    with rows(store) as database:
        found = database.execute(f"SELECT id, data FROM {table} ORDER BY id").fetchall()
        for (one, first), (other, second) in zip(found[::2], found[1::2], strict=False):
            database.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (second, one))
            database.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (first, other))


def flip_rows(store: Path, table: str) -> None:
    """Flip a bit in the middle of each row of a table."""
    with rows(store) as database:
        for number, data in database.execute(f"SELECT id, data FROM {table}").fetchall():
            changed = bytearray(data)
            changed[len(changed) // 2] ^= 1
            database.execute(f"UPDATE {table} SET data = ? WHERE id = ?", (bytes(changed), number))


def remove_rows(store: Path, table: str) -> None:
    """Remove every second row of a table."""
    with rows(store) as database:
        database.execute(f"DELETE FROM {table} WHERE id % 2 = 1")


def put_contents(source: Path, store: Path) -> None:
    """Replace the contents file by that of another store, of the same length."""
    length = (store / CONTENTS).stat().st_size
    (store / CONTENTS).write_bytes((source / CONTENTS).read_bytes()[:length].ljust(length, b"\0"))


def change_slots(store: Path, change: Callable[[list[bytes]], Iterable[bytes]]) -> None:
    """Replace the contents file by what a function makes of its slots."""
    contents = (store / CONTENTS).read_bytes()
    slots = [contents[start : start + SLOT_SIZE] for start in range(0, len(contents), SLOT_SIZE)]
    (store / CONTENTS).write_bytes(b"".join(change(slots)))


def flipped(content: bytes) -> bytes:
    """Return content with one bit flipped in its middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def truncate(store: Path, pages: int) -> None:
    """Cut some pages off the end of the database."""
    database = store / DATABASE
    with database.open("r+b") as file:
        file.truncate(database.stat().st_size - pages * PAGE_SIZE)


def swap_pages(store: Path) -> None:
    """Exchange the last pages of the database with those before them."""
    database = store / DATABASE
    content = database.read_bytes()
    tail, before = content[-4 * PAGE_SIZE :], content[-8 * PAGE_SIZE : -4 * PAGE_SIZE]
    database.write_bytes(content[: -8 * PAGE_SIZE] + tail + before)


@dataclass(frozen=True)
class Place:
    """A byte of a store: its file, its offset there, and what it is part of, for messages."""

    file: str
    offset: int
    part: str


def sample(store: Path, chance: random.Random) -> Iterator[Place]:
    """Yield places for ever, in turn of the header, each type of page of each table, free pages, log and contents."""
    with closing(sqlite3.connect(f"file:{store / DATABASE}?immutable=1", uri=True)) as database:
        listed = database.execute("SELECT name, pagetype, pageno FROM dbstat").fetchall()
    parts: dict[str, list[int]] = {}
    for name, kind, number in listed:
        parts.setdefault(f"a page ({kind}) of {name}", []).append(number)
    size = (store / DATABASE).stat().st_size
    used = {number for _, _, number in listed}
    parts["a free page"] = [number for number in range(1, size // PAGE_SIZE + 1) if number not in used]
    log = (store / LOG).stat().st_size if (store / LOG).exists() else 0
    contents = (store / CONTENTS).stat().st_size
    while True:
        yield Place(DATABASE, chance.randrange(HEADER_SIZE), "SQLite's header")
        for part, pages in parts.items():
            if pages:
                offset = (chance.choice(pages) - 1) * PAGE_SIZE + chance.randrange(PAGE_SIZE)
                yield Place(DATABASE, offset, part)
        if log:
            yield Place(LOG, chance.randrange(32), "the log's header")
            yield Place(LOG, chance.randrange(log), "the log")
        if contents:
            yield Place(CONTENTS, chance.randrange(contents), "the contents file")


def flip(store: Path, place: Place, chance: random.Random) -> None:
    """Flip one bit of a byte."""
    with (store / place.file).open("r+b") as file:
        file.seek(place.offset)
        byte = file.read(1)[0]
        file.seek(place.offset)
        file.write(bytes([byte ^ 1 << chance.randrange(8)]))
