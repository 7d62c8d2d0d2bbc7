"""The verdict on evidence, for people: what it says, and each check with its outcome."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sconify.attestation.authorities import Authorities
from sconify.attestation.checks import Check
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.intel import VerifiedQuote
from sconify.attestation.judge import Mode, weigh
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import Quote, SgxReport, TdReport
from sconify.attestation.snp import VerifiedReport
from sconify.attestation.snp_report import SnpReport
from sconify.attestation.vm import VmEvidence
from sconify.errors import ServiceError, UntrustedDataError
from sconify.policy.factors import Factor
from sconify.policy.security import Security


@dataclass(frozen=True)
class Verdict:
    """What evidence is worth.

    Attributes:
        kind: ``sgx``, ``tdx`` or ``snp``.
        at: The time of the verdict, in seconds since 1970.
        claims: What the evidence says, by the names of the session language where it has one.
        checks: Each check and its outcome.
        tolerated: The weaknesses that the policy puts up with.
    """

    kind: str
    at: int
    claims: Mapping[str, str]
    checks: tuple[Check, ...]
    tolerated: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether every check holds."""
        return all(check.passed for check in self.checks)


def give_verdict(
    evidence: Quote | SnpReport,
    *,
    certificate: bytes,
    program: VmEvidence | None,
    authorities: Authorities,
    security: Security,
    factors: Sequence[Factor] | None,
    at: int,
) -> Verdict:
    """Verify and judge evidence without a request that it would be for; whatever fails becomes a failed check.

    Args:
        evidence: What the hardware says.
        certificate: The certificate of an SNP report's key in DER; empty: none.
        program: What a LAS says of a program, which is verified as well.
        authorities: What it is verified against.
        security: The policy's security section.
        factors: What must run, and where; None: whatever it is.
        at: The time, in seconds since 1970.
    """
    kind = evidence.tee if isinstance(evidence, Quote) else "snp"
    claims = _claims(evidence)
    verified: VerifiedQuote | VerifiedReport
    try:
        if isinstance(evidence, Quote):
            verified = authorities.verify_quote(evidence, at=at)
        else:
            verified = authorities.verify_report(evidence, certificate=certificate, at=at)
        measurement = _measurement(evidence)
        if program is not None:
            proven = program.verify(expected_report_data=program.report_data, authorities=authorities, at=at)
            measurement = proven.measurement
            claims["program measurement"] = measurement.hex()
    except (UntrustedDataError, ServiceError) as error:
        return Verdict(kind, at, claims, (_failed(error),))
    platform = VerifiedEvidence(kind=kind, measurement=measurement, debug=False, platform=verified, proof=PROOF)
    judgement = weigh(platform, factors=factors or (), security=security, mode=Mode.DEBUG, at=at)
    checks = [check for check in judgement.checks if factors is not None or check.name != "attestation factor"]
    genuine = Check("signatures and certificates", True, "genuine, up to the manufacturer's root", "genuine")
    return Verdict(kind, at, claims | _findings(verified), (genuine, *checks), judgement.tolerated)


def _measurement(evidence: Quote | SnpReport) -> bytes:
    """Return what stands for the program when no LAS has measured one."""
    return (
        evidence.body.mrenclave if isinstance(evidence, Quote) and isinstance(evidence.body, SgxReport) else bytes(32)
    )


def _failed(error: UntrustedDataError | ServiceError) -> Check:
    if isinstance(error, ServiceError):
        remedy = "give it with --collateral=FILE; `sconify cas collateral fetch` gets it where there is a network"
        return Check("collateral", False, error.what, "what the evidence can be verified against", remedy)
    match = re.fullmatch(r"check ([^:]+): (?:got (.*?), expected )?(.*)", error.what, re.DOTALL)
    if match is None:
        return Check("evidence", False, error.what, "genuine evidence", error.remedy)
    name, got, rest = match.groups()
    return Check(name, False, got or rest, rest if got else "what holds", error.remedy)


def _claims(evidence: Quote | SnpReport) -> dict[str, str]:
    if isinstance(evidence, SnpReport):
        return {
            "report version": str(evidence.version),
            "measurement": evidence.measurement.hex(),
            "host_data": evidence.host_data.hex(),
            "id_key_digest": evidence.id_key_digest.hex(),
            "guest SVN": str(evidence.guest_svn),
            "guest policy": f"0x{evidence.policy:x}",
            "VMPL": str(evidence.vmpl),
            "chip id": evidence.chip_id.hex(),
            "report data": evidence.report_data.hex(),
        }
    body, claims = evidence.body, {"quote version": str(evidence.version)}
    if isinstance(body, TdReport):
        claims |= {"mrtd": body.mrtd.hex()}
        claims |= {f"rtmr{number}": rtmr.hex() for number, rtmr in enumerate(body.rtmrs)}
        claims |= {
            "mrconfigid": body.mrconfigid.hex(),
            "mrowner": body.mrowner.hex(),
            "mrownerconfig": body.mrownerconfig.hex(),
            "mrseam": body.mrseam.hex(),
            "xfam": body.xfam.to_bytes(8, "little").hex(),
            "TD attributes": f"0x{body.td_attributes:x}",
        }
    else:
        claims |= {
            "mrenclave": body.mrenclave.hex(),
            "mrsigner": body.mrsigner.hex(),
            "isvprodid": str(body.isv_prod_id),
            "isvsvn": str(body.isv_svn),
        }
    return claims | {"report data": body.report_data.hex()}


def _findings(verified: VerifiedQuote | VerifiedReport) -> dict[str, str]:
    root = {} if verified.test_root is None else {"root": f"a test root, {verified.test_root.hex()}"}
    if isinstance(verified, VerifiedReport):
        return root | {
            "product": str(verified.product),
            "reported TCB": str(verified.reported_tcb),
            "signing key": str(verified.report.signing_key) + (f" of {verified.cloud}" if verified.cloud else ""),
            "certificates until": f"{verified.valid_until:%Y-%m-%d %H:%M:%SZ}",
        }
    return root | {
        "TCB status": str(verified.status),
        "TCB date": f"{verified.tcb_date:%Y-%m-%d}",
        "advisories": ", ".join(verified.advisories) or "none",
        "TCB evaluation": str(verified.evaluation_data_number),
        "FMSPC": verified.platform.fmspc.hex(),
        "collateral": f"{verified.valid_from:%Y-%m-%d %H:%M:%SZ} to {verified.valid_until:%Y-%m-%d %H:%M:%SZ}",
    }
