"""Containers killed at random points: nothing that was acknowledged is lost, nothing is corrupt.

``SCONIFY_VOLUME_ROUNDS`` is how often each is killed, ``SCONIFY_VOLUME_SEED`` at which points.
"""

from __future__ import annotations

import dataclasses
import os
import random
import subprocess
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.containers import Container, run
from tests.e2e.corpus import services
from tests.e2e.corpus.conftest import MakePair, mode, pair
from tests.e2e.corpus.native import TOOLS, debian
from tests.e2e.corpus.services import Recipe
from tests.e2e.volumes.bookings import Bookings
from tests.e2e.volumes.conftest import MakeRecorder
from tests.e2e.volumes.programs import on_volume

__all__ = ["mode", "pair"]

pytestmark = pytest.mark.docker

ROUNDS = int(os.environ.get("SCONIFY_VOLUME_ROUNDS", "3"))
SEED = os.environ.get("SCONIFY_VOLUME_SEED", "1")
LONGEST = 2 if ROUNDS <= 10 else 1
"""Seconds that a program writes before it is killed."""


def test_nothing_acknowledged_is_lost(recorder: MakeRecorder) -> None:
    subject = recorder("recorder-crashes")
    chance = random.Random(f"records {SEED}")
    acknowledged = records = 0
    for number in range(ROUNDS):
        found, acknowledged_now = subject.crash(chance.uniform(0, LONGEST))
        assert found >= acknowledged, f"round {number}: {acknowledged} records were acknowledged, {found} are there"
        acknowledged = acknowledged_now
        records = max(records, acknowledged)
        print(f"round {number}: {found} records found, {acknowledged} acknowledged", flush=True)
    found, _ = subject.crash(0)
    assert found >= acknowledged
    print(f"{ROUNDS} kills, {records} records")


def test_sqlite_loses_no_row(pair: MakePair, tmp_path: Path) -> None:
    sqlite = pair(
        Recipe(
            "sqlite-volume",
            f'FROM {debian(TOOLS)}\nCMD ["sqlite3", "/data/rows.db"]\n',
            ("--binary=sqlite3", "--volume=data:/data"),
        )
    )
    store = tmp_path / "store"
    store.mkdir()
    chance = random.Random(f"rows {SEED}")
    acknowledged = 0
    for number in range(ROUNDS):
        name = f"sconify-test-{uuid.uuid4().hex[:12]}"
        command = ("docker", "run", "--rm", "-i", f"--name={name}", f"--volume={store}:/data", sqlite.encrypted)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            mode = "WAL" if number % 2 else "DELETE"
            process.stdin.write(
                f"PRAGMA journal_mode={mode}; PRAGMA synchronous=FULL; "
                "CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, s);\n"
                "PRAGMA integrity_check; SELECT count(*) FROM t;\n"
            )
            process.stdin.flush()
            said = [process.stdout.readline().strip() for _ in range(3)]
            assert said[1] == "ok", f"round {number}: {said}"
            found = int(said[2])
            assert found >= acknowledged, f"round {number}: {acknowledged} rows were acknowledged, {found} are there"
            acknowledged = found
            deadline = time.monotonic() + chance.uniform(0, LONGEST)
            while time.monotonic() < deadline:
                row = acknowledged + 1
                process.stdin.write(f"INSERT INTO t VALUES ({row}, hex(randomblob({row % 3000}))); SELECT {row};\n")
                process.stdin.flush()
                assert process.stdout.readline().strip() == str(row)
                acknowledged = row
            process.stdin.write(
                "".join(f"INSERT INTO t(s) VALUES (hex(randomblob({size}))); " for size in range(50)) + "\n"
            )
            process.stdin.flush()
            time.sleep(chance.uniform(0, 0.1))
            run("docker", "kill", "--signal=KILL", name)
            process.communicate(timeout=30)
            print(f"round {number}: {found} rows found, {acknowledged} acknowledged", flush=True)
        finally:
            run("docker", "rm", "--force", name, check=False)
    print(f"{ROUNDS} kills, {acknowledged} rows")


def test_postgres_loses_no_transaction(pair: MakePair, start: Callable[..., Container], tmp_path: Path) -> None:
    recipe = services.postgres("shared_buffers=16MB", "max_wal_size=64MB", "checkpoint_timeout=30s",
                               "autovacuum_naptime=2s")  # fmt: skip
    postgres = pair(on_volume(dataclasses.replace(recipe, name="postgres-crashes"), "/var/lib/postgresql"))
    store = tmp_path / "store"
    store.mkdir()
    store.chmod(0o777)
    container = start(postgres.encrypted, f"--volume={store}:/var/lib/postgresql")
    bookings = Bookings(container)
    bookings.prepare()
    chance = random.Random(f"bookings {SEED}")

    def kill() -> None:
        bookings.is_ending = True
        if container.engine("kill", "--signal=KILL", container.name, check=False).returncode:
            pytest.fail(f"the server has ended:\n{container.logs()[-6000:]}")

    for number in range(ROUNDS):
        found = bookings.check(everything=number % 20 == 0)
        writers = bookings.write(chance)
        time.sleep(chance.uniform(0, LONGEST))
        kill()
        for writer in writers:
            writer.result(60)
        print(f"round {number}: {found} bookings found, {sum(bookings.acknowledged)} acknowledged", flush=True)
        run("docker", "start", container.name)
        if chance.random() < 0.2:
            time.sleep(chance.uniform(0, LONGEST))
            kill()
            run("docker", "start", container.name)
            print(f"round {number}: killed once more while it recovered", flush=True)
    found = bookings.check(everything=True)
    assert found > ROUNDS
    print(f"{ROUNDS} kills, {found} bookings")
    run("docker", "stop", "--time=60", container.name)
    assert run("docker", "wait", container.name).stdout.strip() == "0"
