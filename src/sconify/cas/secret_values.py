"""The values of secrets that a session has of its own: given by its text, kept from its last version, or made now."""

from __future__ import annotations

import datetime
import json
import secrets as random
import string
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from pysequoia import CipherSuite, Tsk

from sconify.cas import certificates
from sconify.cas.errors import BadRequestError
from sconify.errors import BugError, UserError
from sconify.policy.formats import SecretValue
from sconify.policy.model import Session
from sconify.policy.secret import (
    AsciiSecret,
    AuthoritySecret,
    BinarySecret,
    CertificateSecret,
    FragmentSecret,
    ImportedAnySecret,
    JwtSecret,
    PgpKeySecret,
    PrivateKeySecret,
    PublicKeySecret,
    Secret,
    load_private_key,
    load_public_key,
)

_PRINTABLE = string.digits + string.ascii_letters + string.punctuation
VOLUME_KEY_SIZE = 32


def make_values(session: Session, *, before: Session | None, kept: Mapping[str, SecretValue]) -> dict[str, SecretValue]:
    """Return the values of a session's own secrets.

    Not among them: what is imported, tokens (each attestation gets its own), and certificates whose key or issuer is
    imported; they are made when they are asked for (``resolution``).

    Args:
        session: The new version.
        before: The version that it replaces, if any.
        kept: The values that that version has.

    Raises:
        BadRequestError: A value can't be kept, or a certificate does not belong to its key.
    """
    values: dict[str, SecretValue] = {}
    for secret in _keys_first(session.secrets):
        if secret.import_ is not None or isinstance(secret, JwtSecret | ImportedAnySecret):
            continue
        old = kept.get(secret.name)
        earlier = before.secret(secret.name) if before is not None else None
        try:
            value = _value(secret, old if old is not None and old.kind == secret.kind else None, earlier, values)
        except UserError as error:
            raise BadRequestError(error.what, remedy=error.remedy) from None
        if value is not None:
            values[secret.name] = value
    return values


def make_volume_keys(session: Session, *, kept: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the keys of a session's own volumes whose keys it does not give: kept, or made now.

    Args:
        session: The new version.
        kept: The keys that the version before has.
    """
    return {
        volume.name: kept.get(volume.name) or random.token_bytes(VOLUME_KEY_SIZE)
        for volume in session.volumes
        if volume.import_ is None and volume.fspf_key is None
    }


def certificate_value(
    secret: CertificateSecret | AuthoritySecret, values: Mapping[str, SecretValue], *, now: datetime.datetime
) -> SecretValue | None:
    """Return the value of a certificate, or None if its key or its issuer is not there (yet).

    Raises:
        UserError: It does not belong to its key, or can't be issued.
    """
    key = values.get(secret.private_key) if secret.private_key is not None else None
    if secret.private_key is not None and key is None:
        return None
    if secret.value is not None:
        return certificates.given(secret, private_key=key.data if key is not None else None)
    issuer = values.get(secret.issuer) if secret.issuer is not None else None
    if key is None or (secret.issuer is not None and issuer is None):
        return None
    return certificates.issue(secret, private_key=key.data, issuer=issuer, now=now)


def public_key_value(secret: PublicKeySecret, values: Mapping[str, SecretValue]) -> SecretValue | None:
    """Return the value of a public key, or None if the private key is not there (yet)."""
    if secret.value is not None:
        key = load_public_key(secret.value)
    else:
        private = values.get(secret.private_key or "")
        if private is None:
            return None
        loaded: Any = load_der_private_key(private.data, None)
        key = loaded.public_key()
    return SecretValue(kind="public-key", data=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _value(
    secret: Secret, old: SecretValue | None, earlier: Secret | None, values: Mapping[str, SecretValue]
) -> SecretValue | None:
    match secret:
        case AsciiSecret() | BinarySecret():
            return _text_or_bytes(secret, old)
        case PrivateKeySecret():
            return _private_key(secret, old, earlier)
        case PublicKeySecret():
            return public_key_value(secret, values)
        case CertificateSecret() | AuthoritySecret():
            return certificate_value(secret, values, now=datetime.datetime.now(datetime.UTC))
        case FragmentSecret():
            return SecretValue(kind="config-fragment", data=json.dumps(secret.value, ensure_ascii=False).encode())
        case PgpKeySecret():
            return old if old is not None else _pgp_key(secret.name)
        case _:
            raise BugError(f"a secret of kind {secret.kind} has no value of its own")


def _text_or_bytes(secret: AsciiSecret | BinarySecret, old: SecretValue | None) -> SecretValue:
    if secret.value is not None:
        data = secret.value.encode() if secret.kind == "ascii" else bytes.fromhex(secret.value)
    elif old is not None:
        if "size" in secret.model_fields_set and len(old.data) != secret.size:
            raise UserError(
                f"secret {secret.name}: got size {secret.size}, but its value is kept, and has {len(old.data)}",
                remedy="give a new secret another name",
            )
        data = old.data
    elif secret.kind == "ascii":
        data = "".join(random.choice(_PRINTABLE) for _ in range(secret.size)).encode()
    else:
        data = random.token_bytes(secret.size)
    return SecretValue(kind=secret.kind, data=data)


def _private_key(secret: PrivateKeySecret, old: SecretValue | None, earlier: Secret | None) -> SecretValue:
    if secret.value is not None:
        key = load_private_key(secret.value)
    elif old is not None and secret.migrate and earlier is not None and earlier.migrate:
        if isinstance(earlier, PrivateKeySecret) and earlier.value is None and earlier.key_type != secret.key_type:
            raise UserError(
                f"secret {secret.name}: got key_type {secret.key_type}, but its value is kept: {earlier.key_type}",
                remedy="give a new secret another name, or leave migrate out",
            )
        return old
    else:
        key = _generate(secret.key_type)
    pkcs8 = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return SecretValue(kind="private-key", data=pkcs8)


def _generate(key_type: str) -> Any:
    match key_type:
        case "P-256":
            return ec.generate_private_key(ec.SECP256R1())
        case "P-384":
            return ec.generate_private_key(ec.SECP384R1())
        case "Ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa.generate_private_key(65537, int(key_type.removeprefix("RSA-")))


def _pgp_key(name: str) -> SecretValue:
    """Make a key: Ed25519 to certify and sign, Curve25519 to encrypt (RFC 4880 packets)."""
    key = Tsk.generate(user_id=name, cipher_suite=CipherSuite.Cv25519)
    return SecretValue(kind="pgp-key", data=bytes(key.extract_certificate()), private_key=bytes(key))


def _keys_first(secrets: tuple[Secret, ...]) -> list[Secret]:
    """Return the secrets so that each comes after those that it is made of."""
    order: list[Secret] = [
        s for s in secrets if not isinstance(s, PublicKeySecret | CertificateSecret | AuthoritySecret)
    ]
    rest: list[Any] = [s for s in secrets if isinstance(s, PublicKeySecret | CertificateSecret | AuthoritySecret)]
    while rest:
        waiting = {secret.name for secret in rest}
        ready = [secret for secret in rest if getattr(secret, "issuer", None) not in waiting]
        order += ready
        rest = [secret for secret in rest if secret not in ready]
        if not ready:
            raise BugError("certificates issue one another in a circle")
    return order
