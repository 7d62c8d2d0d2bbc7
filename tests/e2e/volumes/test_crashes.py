"""Containers killed at random points: nothing that was acknowledged is lost, nothing is corrupt."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.e2e.volumes.conftest import Recorder

pytestmark = pytest.mark.docker

ROUNDS = int(os.environ.get("SCONIFY_VOLUME_ROUNDS", "3"))


def test_nothing_acknowledged_is_lost(recorder: Callable[[str], Recorder]) -> None:
    subject = recorder("recorder-crashes")
    chance = random.Random(1)  # noqa: S311 - not for secrets
    acknowledged = records = 0
    for number in range(ROUNDS):
        found, acknowledged_now = subject.crash(chance.uniform(0, 2))
        assert found >= acknowledged, f"round {number}: {acknowledged} records were acknowledged, {found} are there"
        acknowledged = acknowledged_now
        records = max(records, acknowledged)
    found, _ = subject.crash(0)
    assert found >= acknowledged
    print(f"{ROUNDS} kills, {records} records")
