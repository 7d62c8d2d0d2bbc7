from __future__ import annotations

from tests.fuzz_sessions import fuzz


def test_a_moment_of_fuzzing_finds_nothing() -> None:
    count, finding = fuzz(1, 2)
    assert finding is None
    assert count > 10
