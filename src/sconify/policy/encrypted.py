"""Encrypted sessions: the text of a session, signed or not, that only one CAS can read (RFC 7516, compact).

Who uploads it need not be its author, and learns nothing of it. The header is ``{"alg": "ECDH-ES", "enc": "A256GCM",
"typ": "sconify-encrypted-session", "cty": "application/yaml" or "application/jose+json"}``; the recipient is a key of
the CAS that serves nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from sconify.errors import UserError
from sconify.policy import signed

MEDIA_TYPE: Final = "application/jose"
PLAIN: Final = "application/yaml"
_TYPE = "sconify-encrypted-session"
_ALGORITHMS = ["ECDH-ES", "A256GCM"]


def encrypt_session(text: str, recipient: Mapping[str, Any]) -> str:
    """Return an encrypted session.

    Args:
        text: The YAML, or a signed session as ``signed.sign_session`` gives it.
        recipient: The session encryption key of the CAS, as a JWK.

    Raises:
        UserError: The key is no P-256 key.
    """
    try:
        key = ECKey.import_key({name: str(recipient[name]) for name in ("kty", "crv", "x", "y")})
        if recipient["crv"] != "P-256":
            raise ValueError
    except (JoseError, ValueError, KeyError, TypeError):
        raise UserError("the session encryption key of the CAS is no P-256 key") from None
    content = signed.MEDIA_TYPE if text.lstrip().startswith('{"payload"') else PLAIN
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "typ": _TYPE, "cty": content}
    return jwe.encrypt_compact(header, text.encode(), key, algorithms=_ALGORITHMS) + "\n"


def open_encrypted(document: str, key: ECKey) -> tuple[str, str]:
    """Decrypt an encrypted session.

    Args:
        document: The compact JWE.
        key: The session encryption key of this CAS.

    Returns:
        The text, and its media type: ``PLAIN`` or ``signed.MEDIA_TYPE``.

    Raises:
        UserError: It is none, or not for this CAS.
    """
    try:
        opened = jwe.decrypt_compact(document.strip(), key, algorithms=_ALGORITHMS)
        header = opened.headers()
        if header.get("typ") != _TYPE or header.get("cty") not in (PLAIN, signed.MEDIA_TYPE) or "zip" in header:
            raise ValueError
        return (opened.plaintext or b"").decode(), str(header["cty"])
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            "the body is no encrypted session for this CAS",
            remedy="make it anew with `sconify session encrypt`: the CAS may have another session encryption key",
        ) from None
