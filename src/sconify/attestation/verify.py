"""Verify evidence of any kind."""

from __future__ import annotations

from sconify.attestation import simulated
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.simulated import SimulatedEvidence
from sconify.errors import UntrustedDataError

_PARSERS = {simulated.KIND: SimulatedEvidence.parse}


def verify_evidence(data: object, *, expected_report_data: bytes) -> VerifiedEvidence:
    """Parse and verify evidence.

    Args:
        data: The JSON object of the protocol; its ``kind`` chooses the verifier.
        expected_report_data: What the evidence must be bound to, 64 bytes.

    Raises:
        UntrustedDataError: The evidence is malformed, of an unknown kind, not genuine, or made for something else.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    parse = _PARSERS.get(kind) if isinstance(kind, str) else None
    if parse is None:
        raise UntrustedDataError(
            f"check kind: the evidence is of no known kind, expected one of: {', '.join(_PARSERS)}"
        )
    return parse(data).verify(expected_report_data=expected_report_data)
