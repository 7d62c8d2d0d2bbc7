"""Provisioning: a new CAS is nobody's until its owner shows the token that it printed when it started.

Until then it says what it is, so that the owner can attest it, and nothing else. The owner's key is recorded; with a
session for the root namespace the owner also decides who may create sessions.
"""

from __future__ import annotations

import hmac
import secrets

from sconify.cas.access import Caller
from sconify.cas.audit import AuditLog
from sconify.cas.errors import ConflictError, ForbiddenError, NotProvisionedError
from sconify.cas.sessions import Sessions
from sconify.cas.store import Store

_OWNER = "owner"
_TRIES = 10


class Provisioning:
    """Whether a CAS has an owner, and how it gets one.

    Args:
        store: Remembers the owner.
        sessions: Takes the session of the root namespace.
        audit: Where it is written who became the owner.
        required: Whether the CAS serves nothing before it has an owner.
    """

    def __init__(self, store: Store, *, sessions: Sessions, audit: AuditLog, required: bool) -> None:
        self._store = store
        self._sessions = sessions
        self._audit = audit
        self._open = required and store.known(_OWNER) is None
        self._tries = _TRIES
        self.token = secrets.token_hex(16) if self._open else None
        """What the owner must show; None: there is nothing to provision."""

    def require(self) -> None:
        """Check that the CAS may serve.

        Raises:
            NotProvisionedError: It has no owner yet.
        """
        if self._open and self._store.known(_OWNER) is None:
            raise NotProvisionedError(
                "this CAS is not provisioned yet", remedy="its owner runs `sconify cas provision ADDRESS --token TOKEN`"
            )
        self._open = False

    @property
    def owner(self) -> str | None:
        """The key hash of the owner; None: nobody has provisioned this CAS."""
        known = self._store.known(_OWNER)
        return None if known is None else known.decode()

    def provision(self, token: str, *, root_session: str | None, caller: Caller) -> str:
        """Make the caller the owner.

        Args:
            token: What the CAS printed when it started.
            root_session: The YAML of the root namespace's session; None: everybody may create sessions.
            caller: Who asks.

        Returns:
            The key hash of the owner.

        Raises:
            ConflictError: The CAS has an owner already.
            ForbiddenError: The token is another one, or too many wrong ones were shown.
            BadRequestError: The session is none.
        """
        if not self._open or self.token is None or self._store.known(_OWNER) is not None:
            raise ConflictError("this CAS is provisioned already")
        if self._tries <= 0 or not hmac.compare_digest(token.encode(), self.token.encode()):
            self._tries -= 1
            raise ForbiddenError(
                "the provisioning token is another one", remedy="see what the CAS printed at its start"
            )
        owner = caller.creator
        if root_session is not None:
            self._sessions.put(root_session, caller=caller)
        if self._store.fixed(_OWNER, new=owner.encode()).decode() != owner:
            raise ConflictError("somebody else has provisioned this CAS at the same time")
        self._audit.record("cas provisioned", owner=owner)
        self._open = False
        return owner
