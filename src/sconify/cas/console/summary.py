"""What a session says, in a few words for a screen."""

from __future__ import annotations

from sconify.policy.factors import Factor
from sconify.policy.service import Service


def proofs(service: Service) -> list[str]:
    """Return what the service must prove, one text for each alternative; nothing if it need not prove anything."""
    return [_factor(factor) for factor in service.factors]


def _factor(factor: object) -> str:
    if not isinstance(factor, Factor):
        return str(factor)  # a variable
    parts = []
    measurements = factor.mrenclave if isinstance(factor.mrenclave, tuple) else (factor.mrenclave,)
    if measurements:
        parts.append(" or ".join(str(measurement) for measurement in measurements))
    if factor.signer is not None:
        signer = factor.signer
        parts.append(f"signed by {getattr(signer, 'mrsigner', signer)}")
    if factor.tdx is not None:
        parts.append("in a TDX trust domain")
    if factor.snp is not None:
        parts.append("in a SEV-SNP guest")
    return ", ".join(parts)
