"""The value of a secret, and the formats in which a placeholder may ask for it."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
    pkcs12,
)
from pysequoia import ArmorKind, armor

from sconify.errors import UserError
from sconify.policy.secret import SecretKind


@dataclass(frozen=True, kw_only=True)
class SecretValue:
    """The value of a secret.

    Attributes:
        kind: The kind.
        data: UTF-8 text (``ascii``, ``jwt``), raw bytes (``binary``), PKCS#8 or SubjectPublicKeyInfo in DER (keys), the
            certificate in DER, JSON (``config-fragment``), the public key's packets (``pgp-key``).
        private_key: What belongs to it and is more secret: PKCS#8 in DER of a certificate's key, the secret key's
            packets of a ``pgp-key``; None: not there.
        chain: The certificates of the issuers in DER, the one that issued this one first.
    """

    kind: SecretKind
    data: bytes = field(repr=False)
    private_key: bytes | None = field(default=None, repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Format:
    """One way to write a value.

    Attributes:
        encode: Makes the bytes of it.
        raw: Whether they may be no text, so that they can't stand in arguments or the environment.
    """

    encode: Callable[[SecretValue], bytes]
    raw: bool = False


def _private_pem(pkcs8: bytes) -> bytes:
    key = load_der_private_key(pkcs8, None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _public_pem(spki: bytes) -> bytes:
    return load_der_public_key(spki).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _certificate_pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _private(value: SecretValue) -> bytes:
    if value.private_key is None:
        raise UserError(
            f"the private key of a {value.kind} secret is not there: it was given or imported without",
            remedy="give private_key, or have the exporting session export the private key too",
        )
    return value.private_key


def _pkcs12(value: SecretValue) -> bytes:
    key = load_der_private_key(_private(value), None)
    certificates = [x509.load_der_x509_certificate(der) for der in value.chain]
    certificate = x509.load_der_x509_certificate(value.data)
    return pkcs12.serialize_key_and_certificates(
        None,
        key,  # type: ignore[arg-type] # only the kinds that certificates have are ever stored
        certificate,
        certificates or None,
        NoEncryption(),
    )


def _chain(value: SecretValue) -> bytes:
    return b"".join(_certificate_pem(der) for der in value.chain)


def _root_first(value: SecretValue) -> bytes:
    """Return the old ``.chain``: from the root to the certificate itself, which is in it."""
    return b"".join(_certificate_pem(der) for der in (*reversed(value.chain), value.data))


def _pgp(*, secret: bool, encode: Callable[[bytes, bool], bytes]) -> Callable[[SecretValue], bytes]:
    return lambda value: encode(_private(value) if secret else value.data, secret)


def _armored(packets: bytes, secret: bool) -> bytes:
    text = armor(packets, ArmorKind.SecretKey if secret else ArmorKind.PublicKey)
    return text if isinstance(text, bytes) else str(text).encode()


_DATA = Format(lambda value: value.data)
_RAW = Format(lambda value: value.data, raw=True)
_PRIVATE_PEM = Format(lambda value: _private_pem(value.data))
_CERTIFICATE_KEY_PEM = Format(lambda value: _private_pem(_private(value)))
_CERTIFICATE_KEY_DER = Format(_private, raw=True)
_CERTIFICATE_PEM = Format(lambda value: _certificate_pem(value.data))

_CERTIFICATE: Final[Mapping[str, Format]] = {
    "": _CERTIFICATE_PEM,
    "crt": _CERTIFICATE_PEM,
    "crt:pem": _CERTIFICATE_PEM,
    "crt:der": _RAW,
    "privatekey": _CERTIFICATE_KEY_PEM,
    "privatekey:pem": _CERTIFICATE_KEY_PEM,
    "privatekey:pkcs8:pem": _CERTIFICATE_KEY_PEM,
    "privatekey:der": _CERTIFICATE_KEY_DER,
    "privatekey:pkcs8:der": _CERTIFICATE_KEY_DER,
    "chain": Format(_chain),
    "pkcs12-with-private-key": Format(_pkcs12, raw=True),
    ".crt": _CERTIFICATE_PEM,
    ".key": _CERTIFICATE_KEY_PEM,
    ".chain": Format(_root_first),
}
_HEX = Format(lambda value: value.data.hex().encode())

FORMATS: Final[Mapping[SecretKind, Mapping[str, Format]]] = {
    "ascii": {"": _DATA},
    "jwt": {"": _DATA},
    "config-fragment": {},
    "binary": {
        "": _RAW,
        "bin": _RAW,
        "hex": _HEX,
        ".hex": _HEX,
        "base64": Format(lambda value: base64.b64encode(value.data)),
        "base64url": Format(lambda value: base64.urlsafe_b64encode(value.data)),
        "base32": Format(lambda value: base64.b32encode(value.data)),
        "base32nopad": Format(lambda value: base64.b32encode(value.data).rstrip(b"=")),
    },
    "private-key": {
        "": _PRIVATE_PEM,
        "pem": _PRIVATE_PEM,
        "pkcs8:pem": _PRIVATE_PEM,
        "der": _RAW,
        "pkcs8:der": _RAW,
    },
    "public-key": {
        "": Format(lambda value: _public_pem(value.data)),
        "spki:pem": Format(lambda value: _public_pem(value.data)),
        "spki:der": _RAW,
    },
    "x509": _CERTIFICATE,
    "x509-ca": _CERTIFICATE,
    "pgp-key": {
        f"{half}:{form}": Format(_pgp(secret=half == "privatekey", encode=encode), raw=raw)
        for half in ("privatekey", "publickey")
        for form, encode, raw in (
            ("asciiarmored", _armored, False),
            ("binary", lambda packets, _: packets, True),
            ("base64", lambda packets, _: base64.b64encode(packets), False),
        )
    },
}
"""The formats of each kind by their name in a placeholder; those with a dot are suffixes of old sessions."""

SUFFIXES: Final = (".hex", ".crt", ".key", ".chain")


def format_names(kind: SecretKind) -> str:
    """Return the formats of a kind for a message."""
    return ", ".join(name for name in FORMATS[kind] if name and not name.startswith(".")) or "none"
