"""Key hashes: how a public key is named in policies, on the command line and in what is shown to people.

A key hash is Base58Check (Bitcoin's alphabet and check sum) with version byte 1 over the SHA-256 of the key's
SubjectPublicKeyInfo in DER, as docs/protocol.md section 5 defines it.
"""

from __future__ import annotations

import hashlib
import re

from sconify.errors import UserError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VERSION = b"\x01"
_MAX_TEXT = 64  # 37 bytes make at most 51 characters


def key_sha256(spki: bytes) -> bytes:
    """Return the SHA-256 (32 bytes) of a SubjectPublicKeyInfo in DER."""
    return hashlib.sha256(spki).digest()


def encode_key_hash(sha256: bytes) -> str:
    """Return the key hash of a public key.

    Args:
        sha256: SHA-256 of the key's SubjectPublicKeyInfo, 32 bytes.

    Returns:
        Base58Check text of about 50 characters.
    """
    payload = _VERSION + sha256
    number = int.from_bytes(payload + _checksum(payload), "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return text


def decode_key_hash(text: str) -> bytes:
    """Return the SHA-256 that a key hash stands for.

    Args:
        text: A key hash in Base58Check, or the SHA-256 itself as 64 hex digits.

    Returns:
        The SHA-256 of the key's SubjectPublicKeyInfo, 32 bytes.

    Raises:
        UserError: The text is neither, or its check sum is wrong.
    """
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    number = 0
    for character in text[:_MAX_TEXT]:
        digit = _ALPHABET.find(character)
        if digit < 0:
            raise _no_key_hash(text, f"{character!r} is no Base58 character")
        number = number * 58 + digit
    try:
        raw = number.to_bytes(37, "big")
    except OverflowError:
        raise _no_key_hash(text, "it is too long") from None
    payload, checksum = raw[:33], raw[33:]
    if len(text) > _MAX_TEXT or payload[:1] != _VERSION or _checksum(payload) != checksum:
        raise _no_key_hash(text, "its version or its check sum is wrong")
    return payload[1:]


def _checksum(payload: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(payload).digest()).digest()[:4]


def _no_key_hash(text: str, why: str) -> UserError:
    return UserError(
        f"{text[:_MAX_TEXT]!r} is no key hash: {why}",
        remedy="give the key hash that the CAS prints when it starts, or 64 hex digits",
    )
