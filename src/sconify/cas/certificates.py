"""Certificates that the CAS issues for the ``x509`` and ``x509-ca`` secrets of sessions (RFC 5280)."""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from sconify.errors import UserError
from sconify.policy.formats import SecretValue
from sconify.policy.secret import AuthoritySecret, CertificateSecret, load_certificates

_ENDLESS = datetime.datetime(4096, 1, 1, tzinfo=datetime.UTC)
_SKEW = datetime.timedelta(minutes=5)
_ENDPOINTS = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}


def issue(
    secret: CertificateSecret | AuthoritySecret,
    *,
    private_key: bytes,
    issuer: SecretValue | None,
    now: datetime.datetime,
) -> SecretValue:
    """Issue the certificate of a secret.

    Args:
        secret: What the certificate says.
        private_key: The key that it certifies, PKCS#8 in DER.
        issuer: The ``x509-ca`` that issues it; None: it signs itself.
        now: When its validity begins, but for the skew of clocks.

    Raises:
        UserError: The private key of the issuer is not there.
    """
    key: Any = load_der_private_key(private_key, None)
    name = secret.common_name or _first_dns(secret) or secret.name
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    issuing_key, issuing_name = key, subject
    chain: tuple[bytes, ...] = ()
    until = _ENDLESS if secret.valid_for is None else now + datetime.timedelta(seconds=secret.valid_for)
    if issuer is not None:
        if issuer.private_key is None:
            raise UserError(
                f"secret {secret.name} can't be issued: the private key of {secret.issuer} is not there",
                remedy="have the exporting session export the private key of the x509-ca as well",
            )
        issuing_key = load_der_private_key(issuer.private_key, None)
        authority = x509.load_der_x509_certificate(issuer.data)
        issuing_name, chain = authority.subject, (issuer.data, *issuer.chain)
        until = min(until, authority.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuing_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing_key.public_key()), critical=False)
    )
    authority_ = isinstance(secret, AuthoritySecret)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority_, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=authority_), critical=True)
    if isinstance(secret, CertificateSecret):
        if secret.endpoint is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([_ENDPOINTS[secret.endpoint]]), critical=False)
        names = _alternative_names(secret)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(issuing_key, _digest(issuing_key))
    data = certificate.public_bytes(Encoding.DER)
    return SecretValue(kind=secret.kind, data=data, private_key=private_key, chain=chain)


def given(secret: CertificateSecret | AuthoritySecret, *, private_key: bytes | None) -> SecretValue:
    """Return the value of a certificate that the session gives, with those of its issuers if they follow it.

    Raises:
        UserError: It is for another key than its ``private_key``.
    """
    first, *rest = load_certificates(secret.value or "")
    if private_key is not None:
        key: Any = load_der_private_key(private_key, None)
        if key.public_key() != first.public_key():
            raise UserError(
                f"secret {secret.name}: the certificate is for another key than {secret.private_key}",
                remedy="give the private key that belongs to it as the value of a private-key secret",
            )
    chain = tuple(certificate.public_bytes(Encoding.DER) for certificate in rest)
    return SecretValue(kind=secret.kind, data=first.public_bytes(Encoding.DER), private_key=private_key, chain=chain)


def expiry(value: SecretValue) -> datetime.datetime:
    """Return when a certificate, or the first of its issuers, expires."""
    return min(x509.load_der_x509_certificate(der).not_valid_after_utc for der in (value.data, *value.chain))


def begin(value: SecretValue) -> datetime.datetime:
    """Return when a certificate was issued: its validity begins a little earlier, for clocks that are behind."""
    return x509.load_der_x509_certificate(value.data).not_valid_before_utc + _SKEW


def renewal(value: SecretValue) -> datetime.datetime:
    """Return from when on a certificate is issued anew: when two thirds of its time are over."""
    since, end = begin(value), expiry(value)
    return since + (end - since) * 2 / 3


def _first_dns(secret: CertificateSecret | AuthoritySecret) -> str | None:
    return secret.dns[0] if isinstance(secret, CertificateSecret) and secret.dns else None


def _alternative_names(secret: CertificateSecret) -> list[x509.GeneralName]:
    names: list[x509.GeneralName] = [x509.DNSName(name) for name in secret.dns]
    for name in secret.san:
        kind, _, text = name.partition(":")
        names.append(x509.DNSName(text) if kind == "dns" else x509.IPAddress(ipaddress.ip_address(text)))
    return names


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: Any) -> SHA256 | SHA384 | None:
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return SHA384() if getattr(key, "key_size", 0) == 384 else SHA256()
