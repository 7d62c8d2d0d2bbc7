from __future__ import annotations

import pytest

from sconify.attestation.evidence import PROOF, VerifiedEvidence
from sconify.attestation.judge import Mode, judge
from sconify.errors import UntrustedDataError
from sconify.policy.session import parse_session

GOOD, OTHER = "ab" * 32, "cd" * 32


def judged(
    *, kind: str, debug: bool, measurement: str = GOOD, tolerate: str = "", factors: str = GOOD, mode: Mode = Mode.DEBUG
) -> None:
    session = parse_session(
        f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, attestation: [{{mrenclave: [{factors}]}}]}}]\n'
        f"security: {{attestation: {{tolerate: [{tolerate}]}}}}"
    )
    evidence = VerifiedEvidence(kind=kind, measurement=bytes.fromhex(measurement), debug=debug, proof=PROOF)
    judge(evidence, service=session.services[0], security=session.security, mode=mode)


@pytest.mark.parametrize(
    ("kind", "debug", "tolerate", "mode"),
    [
        ("simulated", True, "simulated-platform", Mode.DEBUG),
        ("hardware", True, "debug-mode", Mode.DEBUG),
        ("hardware", False, "", Mode.DEBUG),
        ("hardware", False, "", Mode.PRODUCTION),
    ],
)
def test_accepted(kind: str, debug: bool, tolerate: str, mode: Mode) -> None:
    judged(kind=kind, debug=debug, tolerate=tolerate, mode=mode)


@pytest.mark.parametrize(
    ("kind", "debug", "tolerate", "mode", "why"),
    [
        ("simulated", True, "", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("simulated", True, "debug-mode", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("simulated", False, "debug-mode", Mode.DEBUG, "does not tolerate simulated-platform"),
        ("simulated", True, "simulated-platform, debug-mode", Mode.PRODUCTION, "production mode"),
        ("simulated", False, "simulated-platform", Mode.PRODUCTION, "production mode"),
        ("hardware", True, "simulated-platform", Mode.DEBUG, "does not tolerate debug-mode"),
        ("hardware", True, "debug-mode", Mode.PRODUCTION, "production mode"),
    ],
)
def test_refused_platforms(kind: str, debug: bool, tolerate: str, mode: Mode, why: str) -> None:
    with pytest.raises(UntrustedDataError, match=f"check platform: .*{why}"):
        judged(kind=kind, debug=debug, tolerate=tolerate, mode=mode)


def test_the_measurement_must_be_one_of_the_factors() -> None:
    judged(kind="hardware", debug=False, factors=f"{OTHER}, {GOOD}")
    with pytest.raises(UntrustedDataError, match=f"check measurement: got {GOOD}, expected {OTHER}"):
        judged(kind="hardware", debug=False, factors=OTHER)
