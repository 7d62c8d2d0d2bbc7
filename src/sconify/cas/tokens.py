"""Tokens (``jwt`` secrets) that the CAS signs for one attestation (RFC 7519)."""

from __future__ import annotations

from collections.abc import Mapping

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from joserfc import jwt
from joserfc.jwk import ECKey

from sconify.errors import UserError
from sconify.policy.formats import SecretValue
from sconify.policy.keyhash import key_hash
from sconify.policy.secret import JwtSecret
from sconify.policy.substitution import substitute


def sign_token(
    secret: JwtSecret, *, secrets: Mapping[str, SecretValue], measurement: str | None, now: int
) -> SecretValue:
    """Return the token of a secret.

    Args:
        secret: What it says.
        secrets: The values of the session's secrets by name.
        measurement: What runs, 64 hex digits; None: nothing was proven.
        now: Seconds since 1970.

    Raises:
        UserError: The key is not there or of another type, or nothing was proven but the token asks for it.
    """
    signer = secrets.get(secret.signer or "")
    if signer is None or secret.validity is None:
        raise UserError(f"token {secret.name}: its signer {secret.signer} has no value")
    key = load_der_private_key(signer.data, None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    claims: dict[str, object] = {}
    for claim, value in secret.payload.items():
        if value == JwtSecret.SELF:
            if measurement is None:
                raise UserError(f"token {secret.name}: claim {claim} is what runs, but the policy asks for no evidence")
            claims[claim] = measurement
        else:
            claims[claim] = substitute(value, secrets=secrets, raw=False).decode()
    claims |= {"iat": now, "nbf": now, "exp": now + secret.validity.for_}
    try:
        signing = ECKey.import_key(pem)
    except ValueError:
        raise UserError(f"token {secret.name}: its signer {secret.signer} is no P-384 key") from None
    if signing.curve_name != "P-384":
        raise UserError(
            f"token {secret.name}: its signer {secret.signer} is a {signing.curve_name} key, expected P-384"
        )
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    header = {"alg": secret.alg, "typ": "JWT", "kid": key_hash(spki)}
    token = jwt.encode(header, claims, signing, algorithms=[secret.alg])
    return SecretValue(kind="jwt", data=token.encode())
