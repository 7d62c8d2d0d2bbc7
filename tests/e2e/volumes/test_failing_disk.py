"""A disk that fails beneath a volume: the program is told, and nothing that was acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.volumes.conftest import MakeNotes
from tests.e2e.volumes.disks import disk

pytestmark = pytest.mark.docker


def test_a_disk_that_is_gone_gives_eio(notes: MakeNotes, tmp_path: Path) -> None:
    program = notes("gone-disk")
    with disk(tmp_path) as failing:
        with program.talk(store=failing.store) as running:
            assert [running.ask(f"put note-{number} text-{number}") for number in range(20)] == ["ok"] * 20
            failing.shut_down()
            assert running.ask("put note-0 lost") == "EIO"
            assert running.ask("put another lost") == "EIO", running.wait()
            # What is in memory can be read on.
            assert running.ask("get note-19") == "text-19"
            running.kill()
        failing.mount_again()
        found = program.said(*(f"get note-{number}" for number in range(20)), store=failing.store)
        # Nobody was told that the last one is durable, nor that it is not.
        assert found[1:] == [f"text-{number}" for number in range(1, 20)]
        assert found[0] in ("text-0", "lost")
        assert program.said("put note-0 again", "get note-0", store=failing.store) == ["ok", "again"]


def test_a_thin_disk_that_is_full_is_got_over(notes: MakeNotes, tmp_path: Path) -> None:
    """The file system takes writes that the disk beneath fails at ``fsync``; as soon as there is room, all is well."""
    program = notes("thin-disk")
    with disk(tmp_path, mebibytes=48) as failing:
        with program.talk(store=failing.store) as running:
            stored = 0
            while stored < 100 and (answer := running.ask(f"add note-{stored} 1000000")) == "ok":
                stored += 1
            assert 3 < stored < 50
            assert answer in ("EIO", "ENOSPC")
            failing.resize(512)
            answers = [running.ask(f"put small-{number} text-{number}") for number in range(5)]
            assert answers[-1] == "ok", answers
            assert running.ask(f"add more-{stored} 1000000") == "ok"
            code, log = running.end()
        assert code == 0, log
        failing.forget()
        names = program.said("list", store=failing.store)[0].split()
        assert {f"note-{number}" for number in range(stored)} | {"small-4", f"more-{stored}"} <= set(names)
        sizes = program.said(*(f"get note-{number}" for number in range(stored)), store=failing.store)
        assert set(sizes) == {"x" * 4095}
