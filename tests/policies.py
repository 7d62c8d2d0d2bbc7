"""Policies for tests of attestation."""

from __future__ import annotations

from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.judge import Judgement, Mode, weigh
from sconify.policy.model import Session
from sconify.policy.session import parse_session

MEASUREMENT = "ab" * 32


def session(*, factors: str, attestation: str = "") -> Session:
    """A session whose one service has these factors, with members of ``security.attestation``, both in flow style."""
    return parse_session(
        f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, attestation: {factors}}}]\n'
        f"security: {{attestation: {{{attestation}}}}}\n"
    )


def weighed(
    evidence: VerifiedEvidence, *, factors: str, attestation: str = "", mode: Mode = Mode.PRODUCTION, at: int
) -> Judgement:
    """What a policy says of evidence."""
    policy = session(factors=factors, attestation=attestation)
    return weigh(evidence, factors=policy.services[0].factors, security=policy.security, mode=mode, at=at)


def refusals(judgement: Judgement) -> list[str]:
    """The names of the checks that do not hold."""
    return [check.name for check in judgement.checks if not check.passed]
