from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sconify.errors import UserError
from sconify.policy.keyhash import certificate_key_hash, decode_key_hash, encode_key_hash, key_hash


def test_a_known_value() -> None:
    # 0x01, thirty-two zero bytes and the first 4 bytes of their double SHA-256, by hand.
    body = b"\x01" + bytes(32)
    number = int.from_bytes(body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4])
    text = encode_key_hash(bytes(32))
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    assert sum(alphabet.index(digit) * 58**place for place, digit in enumerate(reversed(text))) == number
    assert len(text) == 50


@given(st.binary(min_size=32, max_size=32))
def test_round_trip(digest: bytes) -> None:
    assert decode_key_hash(encode_key_hash(digest)) == digest


@given(st.binary(min_size=32, max_size=32), st.integers(0, 49), st.sampled_from("123456789ABCDEFGHJKLMNPQRSTUVWXYZ"))
def test_a_typing_error_is_noticed(digest: bytes, place: int, digit: str) -> None:
    text = encode_key_hash(digest)
    wrong = text[:place] + digit + text[place + 1 :]
    if wrong != text:
        with pytest.raises(UserError):
            decode_key_hash(wrong)


@pytest.mark.parametrize("text", ["", "1", "0" * 50, "z" * 51, "z" * 10_000, "1" + key_hash(b""), key_hash(b"") + " "])
def test_what_is_no_key_hash(text: str) -> None:
    with pytest.raises(UserError, match="not a key hash"):
        decode_key_hash(text)


@pytest.mark.parametrize("pem", ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "é"])
def test_what_is_no_certificate(pem: str) -> None:
    with pytest.raises(UserError, match="not a PEM certificate"):
        certificate_key_hash(pem)
