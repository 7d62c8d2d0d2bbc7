"""Who may do what with a session."""

from __future__ import annotations

from dataclasses import dataclass, field

from sconify.cas.errors import ForbiddenError, UnauthenticatedError
from sconify.policy.access import AccessPolicy, Grant, Operation, Quorum, SignerGrant

_SIGNER = "signer:"
_SHOWN = {
    "read": "read session",
    "update": "update session",
    "create_sessions": "create sessions in session",
    "list_sessions": "list the sessions in session",
}


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who asks, as far as it was proven.

    Attributes:
        key: The key hash of the client's TLS certificate; None: it showed none.
        signers: The key hashes of the keys that signed the session that it brings, by their public keys in PEM.
    """

    key: str | None = None
    signers: dict[str, str] = field(default_factory=dict)

    @property
    def identities(self) -> frozenset[str]:
        """Every identity that it has: key hashes, and ``signer:`` with one."""
        own = {self.key} if self.key is not None else set()
        return frozenset(own | {f"{_SIGNER}{key}" for key in self.signers.values()})

    @property
    def creator(self) -> str:
        """Who it is as the creator of a session: its TLS key, or else the first signer.

        Raises:
            UnauthenticatedError: It has shown nothing.
        """
        if self.key is not None:
            return self.key
        for key in self.signers.values():
            return f"{_SIGNER}{key}"
        raise UnauthenticatedError(
            "the client showed no certificate",
            remedy="use a client certificate (curl --cert FILE --key FILE), or sign the session",
        )

    def __str__(self) -> str:
        return ", ".join(sorted(self.identities)) or "without certificate"


def require(operation: Operation, *, policy: AccessPolicy, session: str, creator: str, caller: Caller) -> None:
    """Check that the caller may do this.

    Args:
        operation: What is to be done.
        policy: The access policy of the latest version, without variables.
        session: The session's name.
        creator: Who created it, as ``Caller.creator`` has it.
        caller: Who asks.

    Raises:
        ForbiddenError: The access policy does not let the caller.
    """
    if not allows(operation, policy=policy, creator=creator, caller=caller):
        raise ForbiddenError(
            f"client {caller} may not {_SHOWN[operation]} {session}",
            remedy=f"use the identity that created it, or have its access_policy.{operation} name this key hash",
        )


def allows(operation: Operation, *, policy: AccessPolicy, creator: str, caller: Caller) -> bool:
    """Tell whether the caller may do this (as ``require``)."""
    if operation == "list_sessions" and creator in caller.identities:
        return True
    return any(_meets(grant, creator=creator, caller=caller) for grant in policy.grants(operation))


def _meets(grant: Grant, *, creator: str, caller: Caller) -> bool:
    if isinstance(grant, Quorum):
        return sum(_meets(entry, creator=creator, caller=caller) for entry in grant.entries) >= grant.least
    if isinstance(grant, SignerGrant):
        return f"{_SIGNER}{grant.key_hash}" in caller.identities
    if grant == "ANY":
        return True
    if grant == "CREATOR":
        return creator in caller.identities
    return isinstance(grant, str) and grant != "NONE" and grant == caller.key
