"""Judge verified evidence by a policy: absent means refused.

Each rule is a ``Check``, so that one judgement serves three purposes: to refuse with the first check that does not
hold, to show all of them to a person, and to record what was put up with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sconify.attestation import simulated
from sconify.attestation.checks import Check, require
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.factors import factor_checks
from sconify.attestation.intel import VerifiedQuote
from sconify.attestation.judge_intel import quote_checks
from sconify.attestation.judge_snp import report_checks
from sconify.policy.factors import Factor
from sconify.policy.model import Service
from sconify.policy.security import Security


class Mode(StrEnum):
    """What a CAS is for; production refuses what proves nothing, whatever a policy says."""

    DEBUG = "debug"
    PRODUCTION = "production"


@dataclass(frozen=True)
class Judgement:
    """What a policy says of evidence.

    Attributes:
        checks: All checks and their outcomes.
        tolerated: The weaknesses that the policy puts up with, in words for the audit log.
    """

    checks: tuple[Check, ...]
    tolerated: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)


def judge(
    evidence: VerifiedEvidence, *, service: Service, security: Security, mode: Mode, at: int | None = None
) -> Judgement:
    """Decide whether the service may have its configuration.

    Args:
        evidence: What the platform says of the caller.
        service: The service of the policy that the caller claims to be.
        security: The policy's security section.
        mode: The CAS's mode.
        at: The time, in seconds since 1970; None: now.

    Raises:
        UntrustedDataError: A check failed; the message names it.
    """
    judgement = weigh(evidence, factors=service.factors, security=security, mode=mode, at=at)
    require((*judgement.checks, *_quoting_enclave_checks(evidence, service)))
    return judgement


def weigh(
    evidence: VerifiedEvidence, *, factors: Sequence[Factor], security: Security, mode: Mode, at: int | None = None
) -> Judgement:
    """Make all checks of evidence, whatever their outcome.

    Args:
        evidence: What the platform says.
        factors: What is accepted; any of them suffices, none means nothing is.
        security: The policy's security section.
        mode: Whether evidence that proves nothing may be tolerated at all.
        at: The time, in seconds since 1970; None: now.
    """
    now = int(time.time()) if at is None else at
    tolerated: list[str] = []
    checks = [_platform_check(evidence, security, mode, tolerated)]
    if isinstance(evidence.platform, VerifiedQuote):
        checks += quote_checks(evidence.platform, security.attestation, at=now, tolerated=tolerated)
    elif evidence.platform is not None:
        checks += report_checks(evidence.platform, security.attestation, tolerated=tolerated)
    checks += factor_checks(evidence, factors)
    return Judgement(tuple(checks), tuple(tolerated))


def _quoting_enclave_checks(evidence: VerifiedEvidence, service: Service) -> list[Check]:
    if not service.platforms:
        return []
    expected = " or ".join(f"INTEL_QE_ID:{platform}" for platform in service.platforms)
    if not isinstance(evidence.platform, VerifiedQuote):
        return [Check("quoting enclave", False, f"{evidence.kind} evidence, which has none", expected)]
    qe_id = evidence.platform.qe_id.hex()
    return [Check("quoting enclave", qe_id in service.platforms, f"INTEL_QE_ID:{qe_id}", expected)]


def _platform_check(evidence: VerifiedEvidence, security: Security, mode: Mode, tolerated: list[str]) -> Check:
    expected = "hardware evidence"
    if not evidence.simulated:
        what = f"{evidence.kind} evidence of hardware"
        if not evidence.debug:
            return Check("platform", True, what, expected)
        # No policy can allow it: what hardware calls debug, its owner can read.
        return Check("platform", False, f"{evidence.kind} evidence of a debug platform", "a production platform")
    what = (
        f"{evidence.kind} evidence" if evidence.kind == simulated.KIND else f"{evidence.kind} evidence of a test root"
    )
    if mode is Mode.PRODUCTION:
        return Check(
            "platform",
            False,
            f"{what}, of a debug platform",
            f"{expected}: this CAS is in production mode",
            "run the service on a confidential platform, or use a CAS in debug mode",
        )
    passed = "simulated-platform" in security.attestation.tolerate
    if passed:
        tolerated.append("simulated-platform")
    return Check(
        "platform",
        passed,
        what,
        expected + ("" if passed else ": the policy does not tolerate simulated-platform"),
        "add simulated-platform to security.attestation.tolerate of the policy (for tests only)",
    )
