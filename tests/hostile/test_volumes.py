"""The host changes, replaces or takes back the store of a volume: the container does not start, and says why.

``SCONIFY_VOLUME_FLIPS`` is how many bytes are flipped, each for one start of a container.
"""

from __future__ import annotations

import fcntl
import os
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.volumes.conftest import MakeNotes, MakeRecorder, notes, notes_image, recorder, recorder_image
from tests.e2e.volumes.programs import LAUNCH, Recorder
from tests.hostile import volume_stores as stores

__all__ = ["notes", "notes_image", "recorder", "recorder_image"]

pytestmark = pytest.mark.docker

FLIPS = int(os.environ.get("SCONIFY_VOLUME_FLIPS", "10"))


@dataclass
class Victim:
    """A program with a volume, and copies of states of it and of another volume.

    ``new`` is the state that the CAS has recorded and the program has closed, ``killed`` an older one with its log as a
    kill has left it, ``old`` an even older one.
    """

    recorder: Recorder
    old: Path
    killed: Path
    new: Path
    foreign: Path
    records: int

    @property
    def store(self) -> Path:
        return self.recorder.store


@pytest.fixture(scope="module")
def victim(recorder: MakeRecorder, tmp_path_factory: pytest.TempPathFactory) -> Victim:
    directory = tmp_path_factory.mktemp("states")
    subject, other = recorder("hostile-volume"), recorder("hostile-other-volume")
    grow(other, 50, "TERM")
    grow(subject, 50, "TERM")
    stores.put(subject.store, directory / "old")
    # Its journal is no longer kept in the tree then, and a row of content is written again and again.
    grow(subject, 200, "KILL")
    stores.put(subject.store, directory / "killed")
    records = grow(subject, 300, "TERM")
    stores.put(subject.store, directory / "new")
    return Victim(subject, directory / "old", directory / "killed", directory / "new", other.store, records)


def grow(subject: Recorder, records: int, signal: str) -> int:
    """Run it until it has that many records, each time ended by a signal; return how many it has."""
    while True:
        _, acknowledged = subject.crash(0.2, signal)
        if acknowledged >= records:
            return acknowledged


Attack = Callable[[Victim], object]
ATTACKS: dict[str, tuple[Attack, str]] = {
    "an older state": (lambda v: stores.put(v.old, v.store), "it is older"),
    "a state as a kill has left it": (lambda v: stores.put(v.killed, v.store), "it is older"),
    "another volume": (lambda v: stores.put(v.foreign, v.store), "it is foreign"),
    "the header of another volume": (lambda v: stores.mix(v.foreign, v.store, "volume", "id = 0"), "it is foreign"),
    "an older superblock": (lambda v: stores.mix(v.old, v.store, "volume", "id = 1"), "it is older"),
    "the superblock of another volume": (
        lambda v: stores.mix(v.foreign, v.store, "volume", "id = 1"),
        "was changed or comes from another volume",
    ),
    "older nodes": (lambda v: stores.mix(v.old, v.store, "node"), "node"),
    "older content": (lambda v: stores.mix(v.killed, v.store, "chunk"), "/journal: chunk 0 of inode 2"),
    "nodes of another volume": (lambda v: stores.mix(v.foreign, v.store, "node"), "node"),
    "nodes swapped": (lambda v: stores.swap(v.store, "node"), "node"),
    "content swapped": (lambda v: stores.swap(v.store, "chunk"), "chunk"),
    "header and superblock swapped": (lambda v: stores.swap(v.store, "volume"), "header"),
    "header and superblock flipped": (lambda v: stores.flip_rows(v.store, "volume"), ""),
    "nodes flipped": (lambda v: stores.flip_rows(v.store, "node"), "node"),
    "content flipped": (lambda v: stores.flip_rows(v.store, "chunk"), "chunk"),
    "nodes missing": (lambda v: stores.remove_rows(v.store, "node"), "node"),
    "content missing": (lambda v: stores.remove_rows(v.store, "chunk"), "chunk"),
    "truncated by a page": (lambda v: stores.truncate(v.store, 1), "truncated"),
    "truncated by half": (
        lambda v: stores.truncate(v.store, (v.store / stores.DATABASE).stat().st_size // stores.PAGE_SIZE // 2),
        "truncated",
    ),
    "pages swapped": (lambda v: stores.swap_pages(v.store), ""),
    "an older log": (lambda v: stores.put_log(v.killed, v.store), ""),
    "no database": (lambda v: (v.store / stores.DATABASE).unlink(), "holds no volume"),
    "an empty database": (lambda v: (v.store / stores.DATABASE).write_bytes(b""), ""),
    "a database of zeros": (lambda v: (v.store / stores.DATABASE).write_bytes(bytes(1 << 20)), ""),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_store_that_is_not_as_it_was_left_is_refused(victim: Victim, attack: str) -> None:
    spoil, expected = ATTACKS[attack]
    stores.put(victim.new, victim.store)
    spoil(victim)
    found, _, log = victim.recorder.attempt(0)
    assert log, f"{attack}: accepted, with {found} of {victim.records} records"
    print(log)
    assert "volume data at /data" in log, log
    assert expected in log, log


CONTENTS_ATTACKS: dict[str, Callable[[Path, Path], object]] = {
    "flipped": lambda store, _: stores.change_slots(store, lambda slots: map(stores.flipped, slots)),
    "swapped": lambda store, _: stores.change_slots(store, lambda slots: slots[::-1]),
    "zeros": lambda store, _: stores.change_slots(store, lambda slots: [bytes(len(slot)) for slot in slots]),
    "of an older state": lambda store, old: stores.put_contents(old, store),
    "truncated": lambda store, _: stores.change_slots(store, lambda slots: slots[: len(slots) // 2]),
    "missing": lambda store, _: store.joinpath(stores.CONTENTS).unlink(),
}


def test_a_contents_file_that_is_not_as_it_was_left_is_refused(notes: MakeNotes, tmp_path: Path) -> None:
    """What is not found at the start is found when the file is opened, and named."""
    subject = notes("hostile-contents")
    store = Path(subject.store)
    assert subject.said("add large 1000000") == ["ok"]
    stores.put(store, tmp_path / "old")
    assert subject.said("remove large", "add large 1000000") == ["ok", "ok"]
    stores.put(store, tmp_path / "new")
    assert (store / stores.CONTENTS).stat().st_size >= 1_000_000
    for name, attack in CONTENTS_ATTACKS.items():
        stores.put(tmp_path / "new", store)
        attack(store, tmp_path / "old")
        with subject.talk() as program:
            answer = program.ask("get large")
            code, log = program.end()
        assert not answer.startswith("x"), f"{name}: accepted"
        print(f"{name}: {code}\n{log}")
        expected = "contents file" if name in ("truncated", "missing") else "/large: chunk"
        assert "volume data at /data" in log, f"{name}: {log}"
        assert expected in log, f"{name}: {log}"
    stores.put(tmp_path / "new", store)
    assert subject.said("get large")[0].startswith("x" * 1_000)


def test_the_log_is_no_way_around(recorder: MakeRecorder, tmp_path: Path) -> None:
    """Of a volume that is ``strict``, without its log, or with another one: nothing acknowledged is missing."""
    subject, other = recorder("hostile-log", "strict: true"), recorder("hostile-other-log", "strict: true")
    other.crash(0.5)
    subject.crash(1)
    stores.put(subject.store, tmp_path / "old")
    subject.crash(0.5, "TERM")
    stores.put(subject.store, tmp_path / "closed")
    _, acknowledged = subject.crash(1)
    stores.put(subject.store, tmp_path / "new")
    assert (subject.store / stores.LOG).stat().st_size > 1_000_000
    for name, source, expected in (
        ("no log", tmp_path / "closed", "it is older"),
        ("an older log", tmp_path / "old", ""),
        ("a foreign log", other.store, ""),
    ):
        stores.put(tmp_path / "new", subject.store)
        stores.put_log(source, subject.store)
        found, _, log = subject.attempt(0)
        assert "volume data at /data" in log, f"{name}: {found} of {acknowledged} records\n{log}"
        assert expected in log, f"{name}:\n{log}"
    stores.put(tmp_path / "new", subject.store)
    stores.cut_log(subject.store)
    _, _, log = subject.attempt(0)
    assert "volume data at /data: the volume in /data is refused: it is older" in log.replace("\n  Caused by", ""), log
    stores.put(tmp_path / "new", subject.store)
    assert subject.crash(0)[0] >= acknowledged


def test_a_flipped_byte_is_refused_or_without_effect(victim: Victim) -> None:
    """Free bytes are not authenticated and mean nothing; all others are."""
    assert (victim.new / stores.CONTENTS).stat().st_size > 0
    chance = random.Random(f"flips {FLIPS}")
    outcomes: dict[str, list[int]] = {}
    for _, place in zip(range(FLIPS), stores.sample(victim.new, chance), strict=False):
        stores.put(victim.new, victim.store)
        stores.flip(victim.store, place, chance)
        found, acknowledged, log = victim.recorder.attempt(0, "TERM")
        if log:
            assert "volume data at /data" in log, f"{place}\n{log}"
            assert "it is older" not in log, f"{place}\n{log}"
        else:
            assert found >= victim.records, f"{place}: {found} of {victim.records} records"
            # It has gone on from there.
            victim.records = acknowledged
            stores.put(victim.store, victim.new)
        outcomes.setdefault(place.part, [0, 0])[0 if log else 1] += 1
    for part, (refused, accepted) in outcomes.items():
        print(f"{part}: {refused} refused, {accepted} without effect")
    stores.put(victim.new, victim.store)
    assert victim.recorder.crash(0)[0] >= victim.records


def test_a_flipped_byte_of_a_log_is_refused_or_without_effect(recorder: MakeRecorder, tmp_path: Path) -> None:
    subject = recorder("hostile-flipped-log", "strict: true")
    _, acknowledged = subject.crash(0.7)
    stores.put(subject.store, tmp_path / "new")
    chance = random.Random(f"log {FLIPS}")
    places = (place for place in stores.sample(tmp_path / "new", chance) if place.file == stores.LOG)
    refused = 0
    for _, place in zip(range(max(2, FLIPS // 5)), places, strict=False):
        stores.put(tmp_path / "new", subject.store)
        stores.flip(subject.store, place, chance)
        found, now, log = subject.attempt(0)
        assert "volume data at /data" in log if log else found >= acknowledged, f"{place} {found} {acknowledged}\n{log}"
        refused += bool(log)
        if not log:
            acknowledged = now
            stores.put(subject.store, tmp_path / "new")
    print(f"{refused} refused")
    assert refused


def test_nothing_of_a_volume_is_readable_on_the_disk(notes: MakeNotes) -> None:
    """Neither content nor a name, of files, directories and links, those that were removed included."""
    subject = notes("canary-volume")
    canaries = {kind: f"canary-{kind}-{uuid.uuid4().hex}" for kind in ("name", "content", "gone", "old")}
    assert subject.said(
        f"put {canaries['name']} {canaries['content'] * 3}",
        f"put {canaries['gone']} {canaries['old'] * 100}",
        f"add {canaries['name']}.large 1000000",
        f"remove {canaries['gone']}",
        f"get {canaries['name']}",
    ) == ["ok", "ok", "ok", "ok", canaries["content"] * 3]  # fmt: skip
    with subject.talk() as program:
        assert program.ask(f"put {canaries['name']}.2 {canaries['content']}") == "ok"
        program.kill()
    store = Path(subject.store)
    assert {path.name for path in store.iterdir()} <= {stores.DATABASE, stores.LOG, stores.CONTENTS, stores.LOCK}
    for path in store.iterdir():
        content = path.read_bytes()
        assert b"x" * 64 not in content, f"content is in {path.name}"
        for canary in canaries.values():
            for form in (canary.encode(), canary.encode().hex().encode(), canary.encode("utf-16-le")):
                assert form not in content, f"{canary} is in {path.name}"


def test_a_second_writer_is_refused(notes: MakeNotes) -> None:
    subject = notes("locked-volume")
    assert subject.said("put a text") == ["ok"]
    with (Path(subject.store) / stores.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, log = subject.refusal()
    assert (code, "in use" in log, "volume data at /data" in log) == (LAUNCH, True, True), log
