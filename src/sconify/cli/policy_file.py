"""Policies as commands take them that judge evidence: a session file and one of its services."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sconify.errors import UserError
from sconify.policy.document import MAX_BYTES
from sconify.policy.factors import Factor
from sconify.policy.security import Security
from sconify.policy.session import parse_session


def read_policy(file: Path | None, service: str | None) -> tuple[Security, Sequence[Factor] | None]:
    """Return what a policy demands of a platform, and the factors of a service.

    Args:
        file: The session; None: the strict policy, and no factors.
        service: The service whose factors count; None: the first.

    Raises:
        UserError: It is no session, or has no such service.
    """
    if file is None:
        return Security(), None
    text = file.read_bytes()
    if len(text) > MAX_BYTES:
        raise UserError(f"{file} is larger than {MAX_BYTES} bytes", remedy="name a session file")
    session = parse_session(text.decode("utf-8", "surrogateescape"))
    chosen = session.service(service) if service is not None else next(iter(session.services), None)
    if chosen is None:
        raise UserError(f"{file} has no service {service or ''}".rstrip(), remedy="give --service=NAME")
    return session.security, chosen.factors
