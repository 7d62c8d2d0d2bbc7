"""Who may do what with a session."""

from __future__ import annotations

from typing import Literal

from sconify.cas.errors import ForbiddenError
from sconify.policy.model import Session

Operation = Literal["read", "update", "create_sessions"]


def require(operation: Operation, *, session: Session, creator: str, caller: str) -> None:
    """Check that the caller may do this.

    Args:
        operation: What is to be done.
        session: The latest version of the session.
        creator: The key hash of who created it.
        caller: The key hash of the client.

    Raises:
        ForbiddenError: The access policy does not let the caller.
    """
    policy = session.access_policy
    grants = {
        "read": policy.read,
        "update": policy.update,
        "create_sessions": policy.create_sessions if policy.create_sessions is not None else policy.update,
    }[operation]
    if "ANY" in grants or caller in grants or ("CREATOR" in grants and caller == creator):
        return
    raise ForbiddenError(
        f"client {caller} may not {operation.replace('_', ' ')} in session {session.name}"
        if operation == "create_sessions"
        else f"client {caller} may not {operation} session {session.name}",
        remedy=f"use the identity that created it, or have its access_policy.{operation} name this key hash",
    )
