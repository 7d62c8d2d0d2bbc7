"""What a client demands of the platform of a CAS on hardware."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sconify.attestation.authorities import Authorities
from sconify.attestation.checks import require
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.judge import Mode, weigh
from sconify.errors import UntrustedDataError
from sconify.policy.factors import Factor
from sconify.policy.security import Security


@dataclass(frozen=True, kw_only=True)
class PlatformDemands:
    """What is demanded.

    Attributes:
        authorities: What evidence is verified against.
        security: The weaknesses that are put up with.
        factors: The VMs that may run the CAS; None: none is named, so its key must be known from elsewhere.
    """

    authorities: Authorities
    security: Security
    factors: Sequence[Factor] | None = None

    def require(self, evidence: VerifiedEvidence, *, key_is_known: bool, allow_debug: bool) -> None:
        """Check that verified evidence of hardware meets the demands.

        Args:
            evidence: What the CAS showed.
            key_is_known: Whether the caller expects this very key.
            allow_debug: Whether a test's root is put up with.

        Raises:
            UntrustedDataError: It does not, or which VMs may run a CAS is not said: anybody can start a VM.
        """
        if self.factors is None and not key_is_known:
            raise UntrustedDataError(
                f"check platform: it is a genuine {evidence.kind} VM, but which VMs may run a CAS is not said",
                remedy="give --policy=FILE with the tdx or snp section of your CAS, or its key with -c HASH",
            )
        security = self.security
        if allow_debug:
            tolerate = (*security.attestation.tolerate, "simulated-platform")
            attestation = security.attestation.model_copy(update={"tolerate": tolerate})
            security = security.model_copy(update={"attestation": attestation})
        mode = Mode.DEBUG if allow_debug else Mode.PRODUCTION
        judgement = weigh(evidence, factors=self.factors or (), security=security, mode=mode)
        require([check for check in judgement.checks if self.factors is not None or check.name != "attestation factor"])
