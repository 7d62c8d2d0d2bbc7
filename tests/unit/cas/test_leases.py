from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sconify.cas.errors import ConflictError
from sconify.cas.leases import LEASE_SECONDS, Leases
from sconify.cas.master_key import FileMasterKey
from sconify.cas.store import Store
from sconify.errors import UntrustedDataError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", master_key=FileMasterKey(tmp_path / "key"))
    yield store
    store.close()


def test_an_expired_lease_goes_to_the_next_and_the_old_run_is_fenced_off(store: Store) -> None:
    now = 1000.0
    leases = Leases(store, clock=lambda: now)
    leases.take("s/a", run="one")
    with pytest.raises(UntrustedDataError, match="runs already"):
        leases.take("s/a", run="two")
    leases.take("s/b", run="other")
    now += LEASE_SECONDS - 1
    assert leases.renew("s/a", run="one") == LEASE_SECONDS
    now += LEASE_SECONDS + 1
    leases.take("s/a", run="two")
    with pytest.raises(ConflictError, match="taken over"):
        leases.renew("s/a", run="one")
    leases.end("s/a", run="one")  # which it no longer holds
    with pytest.raises(UntrustedDataError):
        leases.take("s/a", run="three")


def test_of_many_takers_one_gets_it(store: Store) -> None:
    leases = Leases(store)

    def take(number: int) -> bool:
        try:
            leases.take("s/a", run=str(number))
        except UntrustedDataError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(take, range(16))) == [False] * 15 + [True]
