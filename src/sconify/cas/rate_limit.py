"""A limit on requests of one address: a bucket of tokens for each, that fills at a steady rate."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from sconify.cas.errors import TooManyRequestsError

_ADDRESSES = 10_000
BURST_SECONDS = 4
"""How many seconds' worth of requests may come at once."""


class RateLimit:
    """Refuses requests of an address that sends too many.

    Args:
        rate: Requests a second that each address may send; 0: as many as it likes.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, address: str) -> None:
        """Count a request.

        Raises:
            TooManyRequestsError: The address has sent too many.
        """
        if not self._rate:
            return
        now, full = self._clock(), self._rate * BURST_SECONDS
        with self._lock:
            tokens, since = self._buckets.pop(address, (full, now))
            tokens = min(full, tokens + (now - since) * self._rate)
            allowed = tokens >= 1
            self._buckets[address] = (tokens - 1 if allowed else tokens, now)
            while len(self._buckets) > _ADDRESSES:
                self._buckets.popitem(last=False)
        if not allowed:
            wait = math.ceil((1 - tokens) / self._rate)
            raise TooManyRequestsError("too many requests from this address", remedy=f"wait {wait} s")
