"""Nonces: given to anybody without keeping anything, accepted once.

A nonce is ``random (16) ‖ expiry (u32, seconds since 1970, big-endian) ‖ the first 12 bytes of HMAC-SHA-256(key, random
‖ expiry ‖ config id)``. So asking for nonces costs no storage, a nonce is good for one config id only, and any process
on the same store can accept it; the store remembers the used ones until they expire.
"""

from __future__ import annotations

import hmac
import os
import threading
import time
from collections.abc import Callable

from sconify.cas.sealing import Authenticator
from sconify.cas.store import Store
from sconify.errors import UntrustedDataError

SIZE = 32
LIFETIME = 60
"""Seconds in which a nonce can be used."""

_CLEAN_EVERY = 30
_REMEDY = "ask for a new challenge"


class Nonces:
    """Issues and accepts the nonces of one store.

    Args:
        store: Remembers the used ones.
        clock: Seconds since 1970.
    """

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._authenticator = Authenticator(store.root_key, purpose="nonce")
        self._cleaning = threading.Lock()
        self._clean_at = 0.0

    def issue(self, *, config_id: str) -> bytes:
        """Return a nonce for a config id, 32 bytes."""
        head = os.urandom(16) + (int(self._clock()) + LIFETIME).to_bytes(4)
        return head + self._tag(head, config_id)

    def accept(self, nonce: bytes, *, config_id: str) -> None:
        """Use a nonce; it can't be used again, whatever comes of the attestation.

        Raises:
            UntrustedDataError: It is not a nonce of this CAS for this config id, it has expired, or it was used before.
        """
        head, tag = nonce[:20], nonce[20:]
        if len(nonce) != SIZE or not hmac.compare_digest(tag, self._tag(head, config_id)):
            raise UntrustedDataError("check nonce: this CAS did not give it for this configuration id", remedy=_REMEDY)
        now = int(self._clock())
        expires_at = int.from_bytes(head[16:])
        if now > expires_at:
            raise UntrustedDataError(f"check nonce: it expired {now - expires_at} s ago", remedy=_REMEDY)
        self._clean(now)
        if not self._store.use_nonce(nonce, expires_at=expires_at):
            raise UntrustedDataError("check nonce: it was used before", remedy=_REMEDY)

    def _tag(self, head: bytes, config_id: str) -> bytes:
        return self._authenticator.digest(head + config_id.encode())[: SIZE - 20]

    def _clean(self, now: int) -> None:
        if now >= self._clean_at and self._cleaning.acquire(blocking=False):
            try:
                self._clean_at = now + _CLEAN_EVERY
                # A nonce outlives its entry by no second, also if the clocks of two processes differ a little.
                self._store.forget_nonces(expired_before=now - LIFETIME)
            finally:
                self._cleaning.release()
