from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sconify.cas.master_key import FileMasterKey
from sconify.cas.nonces import LIFETIME, SIZE, Nonces
from sconify.cas.store import Store
from sconify.errors import UntrustedDataError


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "state", master_key=FileMasterKey(tmp_path / "key"))
    yield store
    store.close()


def test_a_nonce_lives_as_long_as_it_says(store: Store) -> None:
    clock = Clock()
    nonces = Nonces(store, clock=clock)
    one, other = nonces.issue(config_id="a/b"), nonces.issue(config_id="a/b")
    assert len(one) == SIZE
    assert one != other
    clock.now += LIFETIME
    nonces.accept(one, config_id="a/b")
    clock.now += 1
    with pytest.raises(UntrustedDataError, match="check nonce: it expired 1 s ago"):
        nonces.accept(other, config_id="a/b")


def test_a_used_nonce_stays_used_for_as_long_as_it_lives(store: Store) -> None:
    clock = Clock()
    nonces = Nonces(store, clock=clock)
    nonce = nonces.issue(config_id="a/b")
    nonces.accept(nonce, config_id="a/b")
    for _ in range(3 * LIFETIME):
        clock.now += 1
        nonces.accept(nonces.issue(config_id="x/y"), config_id="x/y")  # each makes the store forget what is old
        with pytest.raises(UntrustedDataError, match=r"check nonce: it (was used before|expired)"):
            nonces.accept(nonce, config_id="a/b")


def test_old_entries_do_not_pile_up(store: Store) -> None:
    clock = Clock()
    nonces = Nonces(store, clock=clock)
    first = nonces.issue(config_id="a/b")
    nonces.accept(first, config_id="a/b")
    clock.now += 10 * LIFETIME
    nonces.accept(nonces.issue(config_id="a/b"), config_id="a/b")
    assert store.use_nonce(first, expires_at=0)  # its entry is gone


def test_a_nonce_of_another_store_is_none(store: Store, tmp_path: Path) -> None:
    other = Store(tmp_path / "other", master_key=FileMasterKey(tmp_path / "other-key"))
    with pytest.raises(UntrustedDataError, match="this CAS did not give it"):
        Nonces(store).accept(Nonces(other).issue(config_id="a/b"), config_id="a/b")
    other.close()


@pytest.mark.parametrize("size", [0, 20, 31, 33, 64])
def test_a_nonce_of_another_size_is_none(store: Store, size: int) -> None:
    with pytest.raises(UntrustedDataError, match="this CAS did not give it"):
        Nonces(store).accept(bytes(size), config_id="a/b")
