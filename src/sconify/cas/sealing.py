"""Encryption of what the CAS stores, and the keys that it derives from the master key."""

from __future__ import annotations

import hashlib
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sconify.errors import UntrustedDataError

_NONCE_SIZE = 12


class Sealer:
    """Seals data for one purpose: AES-256-GCM, random nonce, bound to a place by its associated data.

    Args:
        master_key: 32 bytes.
        purpose: What the derived key is for; no two uses share one.
    """

    def __init__(self, master_key: bytes, *, purpose: str) -> None:
        self._aead = AESGCM(derive_key(master_key, purpose=purpose))

    def seal(self, data: bytes, *, place: tuple[str, ...]) -> bytes:
        """Encrypt data so that it opens at this place only.

        Args:
            data: The plaintext.
            place: Table, row and column, or the like.

        Returns:
            Nonce (12), ciphertext, tag (16).
        """
        nonce = os.urandom(_NONCE_SIZE)
        return nonce + self._aead.encrypt(nonce, data, _associated_data(place))

    def open(self, sealed: bytes, *, place: tuple[str, ...]) -> bytes:
        """Decrypt what ``seal`` returned for the same place.

        Raises:
            UntrustedDataError: It was changed, moved, or sealed under another key.
        """
        try:
            return self._aead.decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], _associated_data(place))
        except (InvalidTag, ValueError):
            raise UntrustedDataError(f"stored data of {'/'.join(place[:2])} does not authenticate") from None


class Authenticator:
    """A keyed digest (HMAC-SHA-256) for one purpose.

    Args:
        master_key: 32 bytes.
        purpose: What the derived key is for; no two uses share one.
    """

    def __init__(self, master_key: bytes, *, purpose: str) -> None:
        self._key = derive_key(master_key, purpose=purpose)

    def digest(self, data: bytes) -> bytes:
        """Return 32 bytes that only the holder of the master key can compute."""
        return hmac.digest(self._key, data, hashlib.sha256)


def derive_key(master_key: bytes, *, purpose: str) -> bytes:
    """Return the key for a purpose, 32 bytes (HKDF-SHA-256)."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"sconify cas v1 {purpose}".encode()).derive(master_key)


def _associated_data(place: tuple[str, ...]) -> bytes:
    return b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in place)
