"""Signed sessions: the text of a session with the signatures of those who stand behind it (RFC 7515, general JSON).

The payload is the session's YAML. Each signature's protected header is ``{"alg": "Ed25519" or "ES384", "jwk": {...},
"typ": "sconify-session"}``; it counts as what its key's holder says, and which keys count is the access policy's
business.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey
from pydantic_core import PydanticCustomError

from sconify.errors import UntrustedDataError, UserError
from sconify.policy.keyhash import key_hash, spki_der
from sconify.policy.secret import load_private_key, load_public_key

MEDIA_TYPE: Final = "application/jose+json"
_TYPE = "sconify-session"
_MAX_SIGNATURES = 16
_ALGORITHMS = ["Ed25519", "ES384"]


def sign_session(text: str, private_keys: list[str]) -> str:
    """Return a signed session.

    Args:
        text: The YAML.
        private_keys: The keys in PEM (PKCS#8), Ed25519 or P-384.

    Raises:
        UserError: A key is none of these.
    """
    payload, signatures = "", []
    for pem in private_keys:
        key, algorithm = _signing_key(pem)
        jwk = key.as_dict(private=False)
        header = {"alg": algorithm, "jwk": {name: jwk[name] for name in ("kty", "crv", "x", "y") if name in jwk}}
        member: Any = {"protected": {**header, "typ": _TYPE}}
        signed: Any = jws.serialize_json(member, text.encode(), key, algorithms=_ALGORITHMS)
        payload = signed["payload"]
        signatures.append({"protected": signed["protected"], "signature": signed["signature"]})
    return json.dumps({"payload": payload, "signatures": signatures}) + "\n"


def open_signed(document: str) -> tuple[str, dict[str, str]]:
    """Verify a signed session.

    Returns:
        The YAML, and the key hashes of the signers by their public keys in PEM, in the order of the signatures.

    Raises:
        UserError: It is no signed session.
        UntrustedDataError: A signature is not valid.
    """
    try:
        data = json.loads(document)
        payload, signatures = data["payload"], data["signatures"]
        text = base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True).decode()
        if set(data) != {"payload", "signatures"} or not 1 <= len(signatures) <= _MAX_SIGNATURES:
            raise ValueError
        flattened = [{"payload": payload, "protected": s["protected"], "signature": s["signature"]} for s in signatures]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            "the body is no signed session", remedy="make it with `sconify session sign`, or send the YAML itself"
        ) from None
    signers: dict[str, str] = {}
    for signature in flattened:
        pem, digest = _verify(signature)
        signers[pem] = digest
    return text, signers


def _verify(signature: Any) -> tuple[str, str]:
    try:
        protected = signature["protected"]
        header = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
        key: ECKey | OKPKey
        key = (OKPKey if header["alg"] == "Ed25519" else ECKey).import_key(header["jwk"])
        jws.deserialize_json(signature, key, algorithms=_ALGORITHMS)
        public: Any = load_public_key(key.as_pem(private=False).decode())
    except (JoseError, PydanticCustomError, ValueError, KeyError, TypeError, RecursionError):
        raise UntrustedDataError("check signature: a signature of the session is not valid") from None
    if header.get("typ") != _TYPE or not _is_allowed(public):
        raise UntrustedDataError("check signature: it was not made for a session, or by another type of key")
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    return pem, key_hash(spki_der(public))


def _signing_key(pem: str) -> tuple[ECKey | OKPKey, str]:
    try:
        private = load_private_key(pem)
    except PydanticCustomError:
        raise UserError("the signing key is no unencrypted PKCS#8 private key in PEM") from None
    if not _is_allowed(private.public_key()):
        raise UserError("the signing key is of another type", remedy="give an Ed25519 or P-384 key")
    normal = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return OKPKey.import_key(normal), "Ed25519"
    return ECKey.import_key(normal), "ES384"


def _is_allowed(key: object) -> bool:
    return isinstance(key, ed25519.Ed25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp384r1"
    )
