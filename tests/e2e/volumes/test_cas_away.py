"""The CAS is away while a volume is in use, or when it should be mounted."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers import COMMANDS, run
from tests.e2e.volumes.conftest import MakeNotes
from tests.e2e.volumes.programs import INTEGRITY

pytestmark = pytest.mark.docker

LAS_OR_CAS = (112, 113)


@pytest.fixture
def embedded(home: dict[str, str]) -> Iterator[Callable[[str], None]]:
    """Start or stop the embedded CAS and LAS; they run again after the test, at the addresses that images have."""

    def control(verb: str) -> None:
        run(str(COMMANDS / "sconify"), "embedded", verb, env=home)

    yield control
    control("start")


def test_a_service_goes_on_and_what_it_wrote_is_taken_over(
    notes: MakeNotes, embedded: Callable[[str], None], tmp_path: Path
) -> None:
    """Killed before it could report, it starts again from its own last state; of two such states one is left."""
    service = notes("away", volume="export: {to: {session: volumes/away-reader}, read_only: true}")
    reader = notes("away-reader", ":volumes/away", mount="read_only: true")
    assert service.said("put a first") == ["ok"]
    shutil.copytree(service.store, tmp_path / "recorded")
    with service.talk() as program:
        assert program.ask("get a") == "first"
        embedded("stop")
        assert [program.ask(f"put a number-{number}") for number in range(20)] == ["ok"] * 20
        program.kill()
    shutil.copytree(service.store, tmp_path / "unreported")
    code, log = service.refusal()
    assert (code in LAS_OR_CAS, "start" in log) == (True, True), log
    embedded("start")
    # Who may not write can't say which state is the newest one.
    code, log = reader.refusal(store=service.store)
    assert (code, "volume data at /data" in log, "it is newer" in log) == (INTEGRITY, True, True), log
    assert "let the service that writes it start once" in log
    assert service.said("get a") == ["number-19"]
    assert reader.said("get a", store=service.store) == ["number-19"]

    code, log = service.refusal(store=tmp_path / "recorded")
    assert (code, "it is older" in log, "volume data at /data" in log) == (INTEGRITY, True, True), log
    assert service.said("get a", store=tmp_path / "unreported") == ["number-19"]


def test_a_state_that_another_one_has_overtaken_is_forked(
    notes: MakeNotes, embedded: Callable[[str], None], tmp_path: Path
) -> None:
    service = notes("forked")
    assert service.said("put a first") == ["ok"]
    shutil.copytree(service.store, tmp_path / "fork")
    with service.talk(store=tmp_path / "fork") as program:
        assert program.ask("get a") == "first"
        embedded("stop")
        assert [program.ask(f"put a fork-{number}") for number in range(8)] == ["ok"] * 8
        program.kill()
    embedded("start")
    assert service.said("put a second") == ["ok"]
    code, log = service.refusal(store=tmp_path / "fork")
    assert (code, "it is forked" in log, "volume data at /data" in log) == (INTEGRITY, True, True), log
    assert service.said("get a") == ["second"]


def test_writers_wait_when_the_bound_is_reached(notes: MakeNotes, embedded: Callable[[str], None]) -> None:
    bounded = notes("bounded", mount="cas_absence_seconds: 3")
    with bounded.talk() as program:
        assert program.ask("put a first") == "ok"
        embedded("stop")
        began = time.monotonic()
        number = 0
        program.tell("put a 0")
        while program.answers_within(3):
            assert program.answer() == "ok"
            number += 1
            assert time.monotonic() - began < 20, "nobody waits"
            program.tell(f"put a {number}")
            time.sleep(0.05)
        assert time.monotonic() - began > 2
        embedded("start")
        assert program.answer() == "ok"
        assert program.ask("put b second") == "ok"
        code, log = program.end()
    assert code == 0
    assert "nothing more is written until it does" in log
    assert "the CAS records its states again" in log
    assert bounded.said("get a", "get b") == [str(number), "second"]


def test_strict_writers_wait_at_once(notes: MakeNotes, embedded: Callable[[str], None], tmp_path: Path) -> None:
    """What ``fsync`` has acknowledged is recorded: no state without it is accepted."""
    strict = notes("strict", mount="strict: true")
    with strict.talk() as program:
        assert program.ask("put a first") == "ok"
        shutil.copytree(strict.store, tmp_path / "first")
        assert program.ask("put a second") == "ok"
        program.kill()
    code, log = strict.refusal(store=tmp_path / "first")
    assert (code, "it is older" in log) == (INTEGRITY, True), log
    with strict.talk() as program:
        assert program.ask("get a") == "second"
        embedded("stop")
        program.tell("put a third")
        assert not program.answers_within(3)
        embedded("start")
        assert program.answer() == "ok"
        assert program.end()[0] == 0
    assert strict.said("get a") == ["third"]
