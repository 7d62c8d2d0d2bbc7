"""Verify evidence of any kind."""

from __future__ import annotations

import time
from collections.abc import Callable

from sconify.attestation import sgx, simulated, vm
from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.sgx import SgxEvidence
from sconify.attestation.simulated import SimulatedEvidence
from sconify.attestation.vm import VmEvidence
from sconify.errors import UntrustedDataError

_HARDWARE: dict[str, Callable[[object], SgxEvidence | VmEvidence]] = {
    sgx.KIND: SgxEvidence.parse,
    vm.TDX: VmEvidence.parse_tdx,
    vm.SNP: VmEvidence.parse_snp,
}
KINDS = (*_HARDWARE, simulated.KIND)


def verify_evidence(
    data: object, *, expected_report_data: bytes, authorities: Authorities | None = None, at: int | None = None
) -> VerifiedEvidence:
    """Parse and verify evidence.

    Args:
        data: The JSON object of the protocol; its ``kind`` chooses the verifier.
        expected_report_data: What the evidence must be bound to, 64 bytes.
        authorities: What evidence of hardware is verified against; None refuses it.
        at: The time, in seconds since 1970; None: now.

    Raises:
        UntrustedDataError: The evidence is malformed, of an unknown kind, not genuine, or made for something else.
        ServiceError: There is no collateral for its platform.
    """
    kind = data.get("kind") if isinstance(data, dict) else None
    if kind == simulated.KIND:
        return SimulatedEvidence.parse(data).verify(expected_report_data=expected_report_data)
    parse = _HARDWARE.get(kind) if isinstance(kind, str) else None
    if parse is None:
        raise UntrustedDataError(f"check kind: the evidence is of no known kind, expected one of: {', '.join(KINDS)}")
    evidence = parse(data)
    if authorities is None:
        raise UntrustedDataError(f"check kind: got {kind} evidence, for which there is no collateral here")
    now = int(time.time()) if at is None else at
    return evidence.verify(expected_report_data=expected_report_data, authorities=authorities, at=now)
