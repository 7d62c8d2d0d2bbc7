"""What a service may have to show besides evidence: a one-time password, and knowledge of an access token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from sconify.cas.sealing import Authenticator
from sconify.cas.store import Store
from sconify.errors import UntrustedDataError

_STEP = 30
_DIGITS = 6
_TRIES = 10
"""Passwords of a service that are looked at in one step, by all replicas together: there are a million only."""

_SERVICE_DOMAIN = b"sconify service access v1\0"
_CAS_DOMAIN = b"sconify CAS access v1\0"


class OneTimePasswords:
    """Checks one-time passwords (RFC 6238: SHA-1, 6 digits, 30 s); each is good once.

    Args:
        store: Remembers the used ones.
        clock: Seconds since 1970.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._used = Authenticator(store.root_key, purpose="one-time password")

    def check(self, password: str | None, *, secret: str, service: str) -> None:
        """Check a password, and use it up.

        Args:
            password: What was shown; None: nothing.
            secret: The shared secret in base32.
            service: Who shows it.

        Raises:
            UntrustedDataError: It is missing, wrong, or was used before.
        """
        remedy = "append the password that your authenticator shows: SCONE_CONFIG_ID=SESSION/SERVICE@123456"
        if password is None:
            raise UntrustedDataError("check one-time password: it is missing", remedy=remedy)
        now = int(self._clock())
        this = now // _STEP
        if not self._take_try(service, this, now):
            raise UntrustedDataError("check one-time password: too many wrong ones", remedy="wait 30 s")
        key = base64.b32decode(secret + "=" * (-len(secret) % 8))
        totp = TOTP(key, _DIGITS, SHA1(), _STEP, enforce_key_length=False)  # noqa: S303 - RFC 6238
        for step in (this - 1, this, this + 1):
            if hmac.compare_digest(totp.generate(step * _STEP), password.encode()):
                used = self._used.digest(f"{service}\0{secret}\0{step}".encode())
                if not self._store.use_nonce(used, expires_at=now + 4 * _STEP):
                    raise UntrustedDataError(
                        "check one-time password: it was used before", remedy="wait for the next one"
                    )
                return
        raise UntrustedDataError("check one-time password: it is wrong, or too old", remedy=remedy)

    def _take_try(self, service: str, step: int, now: int) -> bool:
        """Use one of the tries of a step up, before a password is looked at; all replicas share them."""
        tries = (self._used.digest(f"try\0{service}\0{step}\0{number}".encode()) for number in range(_TRIES))
        return any(self._store.use_nonce(place, expires_at=now + 2 * _STEP) for place in tries)


def check_access_proof(proof: str | None, *, token: str, report_data: bytes) -> None:
    """Check that a service knows the service access token.

    Args:
        proof: HMAC-SHA-256 under the token of the domain tag and the report data, 64 hex digits; None: none was sent.
        token: The token of the policy.
        report_data: What the attestation is bound to.

    Raises:
        UntrustedDataError: It does not.
    """
    if proof is None or not hmac.compare_digest(proof, _proof(_SERVICE_DOMAIN, token, report_data)):
        raise UntrustedDataError(
            f"check service access token: {'it is missing' if proof is None else 'it is another one'}",
            remedy="set SCONE_SERVICE_ACCESS_TOKEN to the policy's security.service_access_token",
        )


def cas_access_proof(*, token: str, report_data: bytes) -> str:
    """Return the proof that this CAS knows the token too, 64 hex digits."""
    return _proof(_CAS_DOMAIN, token, report_data)


def _proof(domain: bytes, token: str, report_data: bytes) -> str:
    return hmac.digest(token.encode(), domain + report_data, hashlib.sha256).hex()
