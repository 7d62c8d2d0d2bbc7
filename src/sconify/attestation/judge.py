"""Judge verified evidence by a policy: absent means refused."""

from __future__ import annotations

from enum import StrEnum

from sconify.attestation import simulated
from sconify.attestation.evidence import VerifiedEvidence
from sconify.errors import UntrustedDataError
from sconify.policy.model import Security, Service


class Mode(StrEnum):
    """What a CAS is for; production refuses what proves nothing, whatever a policy says."""

    DEBUG = "debug"
    PRODUCTION = "production"


def judge(evidence: VerifiedEvidence, *, service: Service, security: Security, mode: Mode) -> None:
    """Decide whether the service may have its configuration.

    Args:
        evidence: What the platform says of the caller.
        service: The service of the policy that the caller claims to be.
        security: The policy's security section.
        mode: The CAS's mode.

    Raises:
        UntrustedDataError: A check failed; the message names it.
    """
    _judge_kind(evidence, tolerate=security.attestation.tolerate, mode=mode)
    _judge_measurement(evidence, service=service)


def _judge_kind(evidence: VerifiedEvidence, *, tolerate: tuple[str, ...], mode: Mode) -> None:
    if mode is Mode.PRODUCTION and (evidence.kind == simulated.KIND or evidence.debug):
        raise UntrustedDataError(
            f"check platform: got {evidence.kind} evidence of a debug platform, expected hardware evidence: "
            "this CAS is in production mode",
            remedy="run the service on a confidential platform, or use a CAS in debug mode",
        )
    # A simulated platform is always a debug platform: tolerating the one says yes to the other, never the reverse.
    allowance = "simulated-platform" if evidence.kind == simulated.KIND else "debug-mode" if evidence.debug else None
    if allowance is not None and allowance not in tolerate:
        raise UntrustedDataError(
            f"check platform: got {evidence.kind} evidence, expected hardware evidence: the policy does not tolerate "
            f"{allowance}",
            remedy=f"add {allowance} to security.attestation.tolerate of the policy (for tests only)",
        )


def _judge_measurement(evidence: VerifiedEvidence, *, service: Service) -> None:
    """Accept if any factor of the policy (OR) holds as a whole (AND)."""
    got = evidence.measurement.hex()
    expected = sorted({value for factor in service.factors for value in factor.mrenclave})
    if not any(got in factor.mrenclave for factor in service.factors):
        raise UntrustedDataError(
            f"check measurement: got {got}, expected {' or '.join(expected) or 'one, but the policy names none'}",
            remedy="start the program as it was measured (same binary, same SCONE_HEAP and SCONE_STACK), "
            "or update the policy's mrenclave",
        )
