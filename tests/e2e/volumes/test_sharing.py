"""Volumes of several sessions, and what each update policy keeps: two containers at once, one after the other."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.e2e.volumes.conftest import MakeNotes
from tests.e2e.volumes.programs import INTEGRITY, LAUNCH, SUPERSEDED

pytestmark = pytest.mark.docker


def test_a_volume_goes_from_session_to_session(notes: MakeNotes, tmp_path: Path) -> None:
    """The owner exports it to two sessions, one of which may read it only; a fourth one is refused by the CAS."""
    owner = notes(
        "share-owner",
        volume="export: [{session: volumes/share-writer}, {to: {session: volumes/share-reader}, read_only: true}]",
    )
    writer = notes("share-writer", ":volumes/share-owner")
    reader = notes("share-reader", ":volumes/share-owner", mount="read_only: true")
    stranger = notes("share-stranger", ":volumes/share-owner")
    store = owner.store

    assert owner.said("put a from-the-owner") == ["ok"]
    assert writer.said("get a", "put b from-the-writer", "put a changed", store=store) == ["from-the-owner", "ok", "ok"]
    assert owner.said("get a", "get b") == ["changed", "from-the-writer"]
    assert reader.said("get a", "put a x", "put c x", "remove b", "add a 5", "get b", store=store) == [
        "changed", "EROFS", "EROFS", "EROFS", "EROFS", "from-the-writer",
    ]  # fmt: skip
    code, log = stranger.refusal(store=store)
    assert "does not export a volume data to session volumes/share-stranger" in log, (code, log)

    # Readers share it with each other and with nobody who writes.
    with reader.talk(store=store) as first, reader.talk(store=store) as second:
        assert (first.ask("get b"), second.ask("get b")) == ("from-the-writer", "from-the-writer")
        code, log = owner.refusal()
        assert (code, "volume data at /data" in log, "in use" in log) == (LAUNCH, True, True), log
    with owner.talk() as busy:
        assert busy.ask("put a again") == "ok"
        for other in (writer, reader, owner):
            code, log = other.refusal(store=store)
            assert (code, "volume data at /data" in log, "in use" in log) == (LAUNCH, True, True), log
    assert owner.said("get a") == ["again"]
    assert reader.said("get a", store=store) == ["again"]

    # Readers are refused what is not the newest state, like writers.
    shutil.copytree(store, tmp_path / "old")
    assert owner.said("put a newest") == ["ok"]
    for importer in (reader, writer):
        code, log = importer.refusal(store=tmp_path / "old")
        assert (code, "volume data at /data" in log, "it is older" in log) == (INTEGRITY, True, True), log
    assert reader.said("get a", store=store) == ["newest"]


def test_a_volume_that_is_mounted_read_only_can_be_read(notes: MakeNotes) -> None:
    """A PersistentVolume that several nodes have as ReadOnlyMany: the store can't be written at all."""
    owner = notes("readonly-owner", volume="export: {to: {session: volumes/readonly-reader}, read_only: true}")
    reader = notes("readonly-reader", ":volumes/readonly-owner", mount="read_only: true")
    code, log = reader.refusal()
    assert (code, "holds no volume" in log) == (LAUNCH, True), log
    assert {path.name for path in Path(reader.store).iterdir()} <= {"volume.lock"}
    assert owner.said("put a text") == ["ok"]
    before = {path.name: path.read_bytes() for path in Path(owner.store).iterdir()}
    for _ in range(2):
        with reader.talk(store=owner.store, read_only=True) as program:
            assert program.ask("get a") == "text"
            assert program.end()[0] == 0
    assert {path.name: path.read_bytes() for path in Path(owner.store).iterdir()} == before


def test_an_export_to_be_read_only_is_no_export_to_write(notes: MakeNotes) -> None:
    owner = notes("export-owner", volume="export: {to: {session: volumes/export-writer}, read_only: true}")
    writer = notes("export-writer", ":volumes/export-owner")
    assert owner.said("put a text") == ["ok"]
    code, log = writer.refusal(store=owner.store)
    assert "is exported by session volumes/export-owner to be read only" in log, (code, log)


def test_changes_of_an_ephemeral_volume_are_lost_at_the_end(notes: MakeNotes, tmp_path: Path) -> None:
    owner = notes("ephemeral-owner", "::volumes/ephemeral-user")
    user = notes("ephemeral-user", ":volumes/ephemeral-owner", mount="update_policy: ephemeral")
    assert owner.said("put a first") == ["ok"]
    shutil.copytree(owner.store, tmp_path / "old")
    with user.talk(store=owner.store) as one, user.talk(store=owner.store) as two:
        assert one.ask("put a mine") == "ok"
        assert (one.ask("get a"), two.ask("get a")) == ("mine", "first")
        assert (one.ask("add big 3000000"), one.ask("remove a"), one.ask("list")) == ("ok", "ok", "big")
        assert one.end()[0] == 0
        assert two.ask("list") == "a"
    assert user.said("get a", "list", store=owner.store) == ["first", "a"]
    assert owner.said("put a second") == ["ok"]
    assert user.said("get a", store=owner.store) == ["second"]
    code, log = user.refusal(store=tmp_path / "old")
    assert (code, "volume data at /data" in log, "it is older" in log) == (INTEGRITY, True, True), log


def test_without_rollback_protection_an_older_state_is_taken(notes: MakeNotes, tmp_path: Path) -> None:
    plain = notes("unprotected", mount="update_policy: no_rollback_protection")
    assert plain.said("put a first") == ["ok"]
    shutil.copytree(plain.store, tmp_path / "old")
    assert plain.said("put a second") == ["ok"]
    with plain.talk(store=tmp_path / "old") as program:
        assert program.ask("get a") == "first"
        code, log = program.end()
    assert (code, "accepts every state that the host puts there" in log) == (0, True), log
    # It is authenticated all the same.
    database = tmp_path / "old/volume.sqlite"
    content = bytearray(database.read_bytes())
    content[-5000:] = b"\0" * 5000
    database.write_bytes(content)
    code, log = plain.refusal(store=tmp_path / "old")
    assert (code, "volume data at /data" in log) == (INTEGRITY, True), log


def test_two_copies_can_not_both_go_on(notes: MakeNotes, tmp_path: Path) -> None:
    """The host runs a copy beside the original: the one whose state the CAS records first goes on, the other ends."""
    pair = notes("copied", mount="strict: true")
    assert pair.said("put a first") == ["ok"]
    shutil.copytree(pair.store, tmp_path / "copy")
    with pair.talk() as one, pair.talk(store=tmp_path / "copy") as other:
        assert (one.ask("get a"), other.ask("get a")) == ("first", "first")
        assert one.ask("put a second") == "ok"
        assert other.ask("put a other") == ""  # never acknowledged
        code, log = other.wait()
    assert (code, "Another run has taken the volume data over" in log) == (SUPERSEDED, True), log
    code, log = pair.refusal(store=tmp_path / "copy")
    assert (code, "it is forked" in log or "it is older" in log) == (INTEGRITY, True), log
    assert pair.said("get a") == ["second"]
