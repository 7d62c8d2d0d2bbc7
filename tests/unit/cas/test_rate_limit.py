from __future__ import annotations

import pytest

from sconify.cas.errors import TooManyRequestsError
from sconify.cas.rate_limit import BURST_SECONDS, RateLimit


def test_an_address_may_send_a_burst_and_then_at_the_rate() -> None:
    now = 100.0
    limit = RateLimit(10, clock=lambda: now)
    for _ in range(10 * BURST_SECONDS):
        limit.take("a")
    with pytest.raises(TooManyRequestsError, match="too many"):
        limit.take("a")
    limit.take("b")
    now += 0.11
    limit.take("a")
    with pytest.raises(TooManyRequestsError):
        limit.take("a")
    now += 1000
    for _ in range(10 * BURST_SECONDS):
        limit.take("a")
    with pytest.raises(TooManyRequestsError):
        limit.take("a")


def test_no_limit_and_many_addresses() -> None:
    for _ in range(10_000):
        RateLimit(0).take("a")
    limit = RateLimit(1)
    for number in range(20_000):
        limit.take(str(number))
    assert len(limit._buckets) <= 10_000
