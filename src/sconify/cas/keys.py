"""The CAS key: the identity of a CAS, pinned in every launch manifest."""

from __future__ import annotations

import base64
import datetime
import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from sconify.cas.store import Store
from sconify.errors import BugError
from sconify.policy.keyhash import key_hash, spki_der

_NAMES = ("cas", "localhost")
_NOT_BEFORE = datetime.datetime(1975, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER = datetime.datetime(4096, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, kw_only=True)
class CasKey:
    """The EC P-256 key of a CAS, and what is derived from it.

    Attributes:
        private: The private key.
        certificate: A self-signed certificate for TLS; only its key counts.
        spki: The SubjectPublicKeyInfo in DER.
        signing: The same key for joserfc.
        jwk: The public key as JWK.
    """

    private: ec.EllipticCurvePrivateKey = field(repr=False)
    certificate: x509.Certificate
    spki: bytes
    signing: ECKey = field(repr=False)
    jwk: dict[str, str]

    @property
    def pin(self) -> str:
        """The ``cas_key`` of launch manifests: SHA-256 of the SubjectPublicKeyInfo, 64 hex digits."""
        return hashlib.sha256(self.spki).hexdigest()

    def sign(self, message: bytes) -> bytes:
        """Return an ECDSA signature with SHA-256 in DER."""
        return self.private.sign(message, ec.ECDSA(SHA256()))

    @property
    def key_hash(self) -> str:
        """The key hash that people compare."""
        return key_hash(self.spki)


def load_cas_key(store: Store) -> CasKey:
    """Return the CAS key of a store; it is made at first start.

    Raises:
        UserError: The store was written under another master key.
    """
    new = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    private = load_der_private_key(store.fixed("cas", new=new), None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise BugError("the stored CAS key is no EC key")
    numbers = private.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "x": _coordinate(numbers.x), "y": _coordinate(numbers.y)}
    secret = _coordinate(private.private_numbers().private_value)
    return CasKey(
        private=private,
        certificate=_certificate(private),
        spki=spki_der(private.public_key()),
        signing=ECKey.import_key({**jwk, "d": secret}),
        jwk=jwk,
    )


def _coordinate(value: int) -> str:
    return base64.urlsafe_b64encode(value.to_bytes(32)).rstrip(b"=").decode()


def _certificate(private: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    """Make a certificate whose names and dates never change; who connects knows the key."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _NAMES[0])])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(dns) for dns in _NAMES]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(private, SHA256())
    )
