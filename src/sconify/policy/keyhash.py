"""Key hashes: how a public key is named in policies and messages (docs/protocol.md, section 5).

A key hash is the Base58Check text (Bitcoin alphabet, version byte 1, 4-byte double SHA-256 checksum) of the SHA-256 of
the key's SubjectPublicKeyInfo in DER.
"""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sconify.errors import UserError

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_VERSION = b"\x01"
_MAX_LENGTH = 51  # 37 bytes in base 58


def spki_der(key: CertificatePublicKeyTypes) -> bytes:
    """Return the SubjectPublicKeyInfo of a public key in DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_hash(spki: bytes) -> str:
    """Return the key hash of a SubjectPublicKeyInfo (DER)."""
    return encode_key_hash(hashlib.sha256(spki).digest())


def encode_key_hash(digest: bytes) -> str:
    """Return the text of a key hash.

    Args:
        digest: The SHA-256 of the SubjectPublicKeyInfo, 32 bytes.
    """
    body = _VERSION + digest
    number = int.from_bytes(body + _checksum(body))
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return text


def decode_key_hash(text: str) -> bytes:
    """Return the 32 bytes that a key hash stands for.

    Raises:
        UserError: The text is no key hash.
    """
    number = 0
    if not text or len(text) > _MAX_LENGTH or any(character not in _ALPHABET for character in text):
        raise UserError("not a key hash: expected about 50 characters of Base58")
    for character in text:
        number = number * 58 + _ALPHABET.index(character)
    try:
        raw = number.to_bytes(37)
    except OverflowError:
        raise UserError("not a key hash: the number is too large") from None
    body, checksum = raw[:33], raw[33:]
    # A second spelling of the same hash (leading "1") must not pass: the text is compared.
    if body[:1] != _VERSION or _checksum(body) != checksum or encode_key_hash(body[1:]) != text:
        raise UserError("not a key hash: version or checksum is wrong")
    return body[1:]


def certificate_key_hash(pem: str) -> str:
    """Return the key hash of the public key of a PEM certificate.

    Raises:
        UserError: The text is no PEM certificate with a supported key.
    """
    try:
        return key_hash(spki_der(x509.load_pem_x509_certificate(pem.encode()).public_key()))
    except (ValueError, UnsupportedAlgorithm):
        raise UserError("not a PEM certificate with a supported public key") from None


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]
