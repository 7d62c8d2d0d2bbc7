"""What the language can say and this CAS can't do: refused when a session is stored, not when a service needs it."""

from __future__ import annotations

from collections.abc import Iterator

from sconify.errors import UserError
from sconify.policy.model import Session
from sconify.policy.part import Variable
from sconify.policy.security import Attestation, Security

_OLD_KEY = 64  # hex digits of the public key of a quoting enclave that no longer exists


def refuse_unsupported(session: Session) -> None:
    """Check that this CAS can do what a session asks for.

    Raises:
        UserError: It can't; the message names the key and says why.
    """
    first = next(_findings(session), None)
    if first is not None:
        what, remedy = first
        raise UserError(f"session {session.name}: {what}", remedy=remedy)


def _findings(session: Session) -> Iterator[tuple[str, str]]:
    security = session.security
    attestation = security.attestation if isinstance(security, Security) else None
    if isinstance(attestation, Attestation) and attestation.must_be_sgx_local is True:
        yield (
            "security.attestation.must_be_sgx_local: that a service runs on the machine of the CAS, no evidence says",
            "leave it out",
        )
    for service in session.services:
        platforms: object = service.platforms
        for platform in platforms if isinstance(platforms, tuple) else ():
            if not isinstance(platform, Variable) and len(platform) == _OLD_KEY:
                yield (
                    f"services.{service.name}.platforms: {platform[:16]}... is the key of a SCONE quoting enclave, "
                    "whose evidence no longer exists",
                    "name Intel's quoting enclaves: INTEL_QE_ID: and 32 hex digits",
                )
    for secret in session.secrets:
        if secret.import_ is not None and secret.import_.cas_url is not None:
            yield (
                f"secrets.{secret.name}.import.cas_url: this CAS asks no other CAS for secrets",
                "import from a session of this CAS",
            )
        if any(target.cas_url is not None for target in secret.export):
            yield (
                f"secrets.{secret.name}.export.cas_url: this CAS gives secrets to no other CAS",
                "export to a session of this CAS",
            )
