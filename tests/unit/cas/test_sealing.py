from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.cas.sealing import Authenticator, Sealer, derive_key
from sconify.errors import UntrustedDataError

KEY = bytes(range(32))
SEALER = Sealer(KEY, purpose="store")


@given(st.binary(), st.lists(st.text(), min_size=1).map(tuple))
def test_what_was_sealed_opens_at_its_place(data: bytes, place: tuple[str, ...]) -> None:
    assert SEALER.open(SEALER.seal(data, place=place), place=place) == data


@pytest.mark.parametrize(
    "place", [("t", "a"), ("t",), ("t", "ab", ""), ("ta", "b"), ("", "t", "ab"), ("t", "AB"), ("t", "a", "b")]
)
def test_it_opens_nowhere_else(place: tuple[str, ...]) -> None:
    sealed = SEALER.seal(b"secret", place=("t", "ab"))
    with pytest.raises(UntrustedDataError):
        SEALER.open(sealed, place=place)


@given(st.integers(0, 12 + 6 + 16 - 1))
def test_each_byte_counts(position: int) -> None:
    sealed = bytearray(SEALER.seal(b"secret", place=("t",)))
    sealed[position] ^= 1
    with pytest.raises(UntrustedDataError):
        SEALER.open(bytes(sealed), place=("t",))


@pytest.mark.parametrize("size", [0, 5, 12, 20, 27])
def test_what_is_too_short(size: int) -> None:
    with pytest.raises(UntrustedDataError):
        SEALER.open(bytes(size), place=("t",))


def test_no_two_uses_share_a_key() -> None:
    sealed = SEALER.seal(b"secret", place=("t",))
    with pytest.raises(UntrustedDataError):
        Sealer(KEY, purpose="session token").open(sealed, place=("t",))
    assert derive_key(KEY, purpose="a") != derive_key(KEY, purpose="b")
    assert Authenticator(KEY, purpose="a").digest(b"x") != Authenticator(KEY, purpose="b").digest(b"x")
