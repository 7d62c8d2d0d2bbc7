"""Certificates with evidence in them, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sconify.attestation.ratls import TAGGED_EVIDENCE


def cbor(value: object) -> bytes:
    """Encode a value; a tag is a tuple of its number and its value."""
    match value:
        case int():
            return _head(0, value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case list():
            return _head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            return _head(5, len(value)) + b"".join(cbor(key) + cbor(member) for key, member in value.items())
        case (int(tag), content):
            return _head(6, tag) + cbor(content)
    raise TypeError(type(value))


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    size = 1 if argument < 1 << 8 else 2 if argument < 1 << 16 else 4
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26}[size]]) + argument.to_bytes(size)


def claims_for(key: ec.EllipticCurvePrivateKey, **more: object) -> bytes:
    """The claims that bind a key."""
    digest = hashlib.sha256(spki(key)).digest()
    return cbor({"pubkey-hash": cbor([1, digest]), **more})


def spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate(
    key: ec.EllipticCurvePrivateKey,
    quote: Callable[[bytes], bytes],
    *,
    claims: bytes | None = None,
    tag: int = 60000,
    evidence: bytes | None = None,
    extensions: int = 1,
) -> bytes:
    """A certificate in DER; ``quote`` makes a quote for report data."""
    claims = claims if claims is not None else claims_for(key)
    report_data = hashlib.sha256(claims).digest() + bytes(32)
    if evidence is None:
        evidence = cbor((tag, [quote(report_data), claims]))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an enclave")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2001, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2002, 1, 1, tzinfo=UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if extensions:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(TAGGED_EVIDENCE), evidence)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)
