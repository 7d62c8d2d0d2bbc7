"""What a session says that is valid and yet should make its author think twice."""

from __future__ import annotations

from collections.abc import Iterator

from sconify.policy.access import AccessPolicy
from sconify.policy.model import Session
from sconify.policy.secret import AsciiSecret, BinarySecret
from sconify.policy.security import Attestation, Security

_START_UP = ("SCONE_HEAP", "SCONE_STACK", "SCONE_CAS_ADDR", "SCONE_LAS_ADDR", "SCONE_CONFIG_ID", "SCONE_MODE")
_SMALL = 16


def warnings(session: Session) -> Iterator[str]:
    """Yield a line for each thing of a session that is deprecated, without effect or weak."""
    for service in session.services:
        if service.mrenclaves:
            yield f"service {service.name}: mrenclaves is the old form; write attestation: {{mrenclave: [...]}}"
        for name in _START_UP:
            if name in service.environment:
                yield f"service {service.name}: {name} has no effect in environment: it is read before the policy is"
    for secret in session.secrets:
        given = secret.value if isinstance(secret, AsciiSecret | BinarySecret) and not secret.export_public else None
        if given and len(given) < _SMALL and session.salt is None:
            yield (
                f"secret {secret.name}: its value is short, so who gets the session's hash could guess it; "
                "give the session a salt"
            )
    security = session.security
    if isinstance(security, Security) and isinstance(security.attestation, Attestation):
        yield from _attestation_warnings(security.attestation)
    policy = session.access_policy
    if isinstance(policy, AccessPolicy):
        for operation in ("update", "create_sessions"):
            if getattr(policy, operation) == ("ANY",):
                yield f"access_policy.{operation} is ANY: whoever reaches the CAS may do that"


def _attestation_warnings(attestation: Attestation) -> Iterator[str]:
    if attestation.mode == "none":
        yield "security.attestation.mode is none: whoever reaches the CAS gets the configuration"
    for tolerated, why in (
        ("debug-mode", "whoever owns the machine can read everything"),
        ("simulated-platform", "anybody can forge its evidence"),
    ):
        if tolerated in attestation.tolerate:
            yield f"security.attestation.tolerate has {tolerated}: {why}"
    if attestation.ignore_advisories == ("*",) and "debug-mode" not in attestation.tolerate:
        yield 'security.attestation.ignore_advisories is "*": every known weakness of a platform is accepted'
    if attestation.trusted_scone_qe_pubkeys:
        yield "security.attestation.trusted_scone_qe_pubkeys has no effect: such quoting enclaves are no more"
