"""What is demanded of Intel platforms, and what a policy can put up with (docs/attestation.md has the table)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from sconify.attestation.checks import Check
from sconify.attestation.intel import VerifiedQuote
from sconify.attestation.quote import SgxReport, TdReport
from sconify.attestation.tcb import TcbStatus
from sconify.policy.attestation import PUBLIC_SIGNERS
from sconify.policy.security import ALL_ADVISORIES, Attestation

_SW, _CONFIGURATION, _OUTDATED = "software-hardening-needed", "insecure-configuration", "outdated-tcb"

_NEEDED: Final[dict[TcbStatus, tuple[str, ...]]] = {
    TcbStatus.UP_TO_DATE: (),
    TcbStatus.SW_HARDENING_NEEDED: (_SW,),
    TcbStatus.CONFIGURATION_NEEDED: (_CONFIGURATION,),
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: (_SW, _CONFIGURATION),
    TcbStatus.OUT_OF_DATE: (_OUTDATED,),
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED: (_OUTDATED, _CONFIGURATION),
    TcbStatus.TD_RELAUNCH_ADVISED: (_OUTDATED,),
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: (_OUTDATED, _CONFIGURATION),
}
"""The tolerations that a status needs; a status that is not here is never accepted."""

_NAMED_ADVISORIES: Final = {"insecure-igpu": "INTEL-SA-00219", "aepic-leak": "INTEL-SA-00657"}
"""The advisories that a toleration names by what they are about."""

_DEBUG_BITS = 0xFF
_SEPT_VE_DISABLE = 1 << 28
_HARMLESS_TD_ATTRIBUTES = _SEPT_VE_DISABLE | 1 << 27 | 1 << 30 | 1 << 31 | 1 << 62 | 1 << 63
"""LASS, SEPT_VE_DISABLE, PKS, KL, TPA, PERFMON; MIGRATABLE and what is reserved are not among them."""


def quote_checks(quote: VerifiedQuote, policy: Attestation, *, at: int, tolerated: list[str]) -> list[Check]:
    """Return the checks of the platform of a quote.

    Args:
        quote: The verified quote.
        policy: What is demanded.
        at: The time, in seconds since 1970.
        tolerated: Gets what is put up with, in words.
    """
    checks = [_tcb_check(quote, policy, at, tolerated), *_advisory_checks(quote, policy, tolerated)]
    least = policy.min_tcb_evaluation_data_number
    number = quote.evaluation_data_number
    checks.append(
        Check(
            "TCB evaluation data number",
            least is None or number >= least,
            str(number),
            "any" if least is None else f"{least} or later",
            "fetch newer collateral",
        )
    )
    checks += _platform_checks(quote, policy.require)
    body = quote.body
    checks += _enclave_checks(body) if isinstance(body, SgxReport) else _trust_domain_checks(body)
    return checks


def _tcb_check(quote: VerifiedQuote, policy: Attestation, at: int, tolerated: list[str]) -> Check:
    status = quote.status
    needed = _NEEDED.get(status)
    if needed is None:
        return Check("TCB status", False, status, "a platform that is not revoked")
    missing = [word for word in needed if word not in policy.tolerate]
    expected = "UpToDate"
    remedy = "update the platform's firmware and microcode"
    if missing:
        remedy += f", or add {' and '.join(missing)} to security.attestation.tolerate of the policy"
    passed = not missing
    if passed and _OUTDATED in needed:
        until = policy.outdated_until
        passed = until is not None and datetime.fromtimestamp(at, UTC) <= until
        if until is None:
            expected = "UpToDate: the policy does not say until when outdated-tcb is tolerated"
            remedy += ", or set security.attestation.outdated_tcb_until of the policy"
        elif not passed:
            expected = f"UpToDate: the policy tolerates outdated-tcb until {policy.outdated_tcb_until} only"
    if passed and needed:
        tolerated.append(f"TCB status {status}")
        expected = f"UpToDate, or by toleration {status}"
    return Check("TCB status", passed, status, expected, remedy)


def _advisory_checks(quote: VerifiedQuote, policy: Attestation, tolerated: list[str]) -> list[Check]:
    if quote.status is TcbStatus.UP_TO_DATE:
        return []
    allowed = {
        *policy.ignore_advisories,
        *(_NAMED_ADVISORIES[word] for word in policy.tolerate if word in _NAMED_ADVISORIES),
    }
    everything = ALL_ADVISORIES in allowed
    refused = [] if everything else [name for name in quote.advisories if name not in allowed]
    if quote.advisories and not refused:
        tolerated += quote.advisories
    return [
        Check(
            "advisories",
            not refused,
            ", ".join(refused or quote.advisories) or "none",
            "every one by toleration" if everything else ", ".join(sorted(allowed)) or "none",
            f"add {', '.join(refused)} to security.attestation.ignore_advisories of the policy",
        )
    ]


def _platform_checks(quote: VerifiedQuote, required: Sequence[str]) -> list[Check]:
    platform = quote.platform
    facts = {"smt-disabled": platform.smt, "static-platform": platform.dynamic, "no-cached-keys": platform.cached_keys}
    # A platform that does not say is not what is demanded; what only AMD's platforms can say is no demand on others.
    return [
        Check(f"platform flag {word}", fact is False, "not known" if fact is None else "no" if fact else "yes", "yes")
        for word, fact in facts.items()
        if word in required
    ]


def _enclave_checks(report: SgxReport) -> list[Check]:
    signer = report.mrsigner.hex()
    return [
        Check("debug", not report.debug, "on" if report.debug else "off", "off"),
        Check(
            "published signer",
            signer not in PUBLIC_SIGNERS,
            signer,
            "a signer whose private key is not public",
            "sign the enclave with a key of your own",
        ),
    ]


def _trust_domain_checks(report: TdReport) -> list[Check]:
    attributes = report.td_attributes
    unknown = attributes & ~_HARMLESS_TD_ATTRIBUTES
    service = report.mrservicetd
    return [
        Check("debug", not attributes & _DEBUG_BITS, "on" if attributes & _DEBUG_BITS else "off", "off"),
        Check(
            "SEPT_VE_DISABLE",
            bool(attributes & _SEPT_VE_DISABLE),
            "on" if attributes & _SEPT_VE_DISABLE else "off",
            "on",
        ),
        Check("TD attributes", not unknown, f"0x{attributes:x}", "no attribute that is migratable or not known"),
        Check("TDX module signer", not any(report.mrsigner_seam), report.mrsigner_seam.hex(), "zero: Intel"),
        Check("TDX module attributes", report.seam_attributes == 0, f"0x{report.seam_attributes:x}", "0x0"),
        Check(
            "service TD",
            service is None or not any(service),
            "none" if service is None else service.hex(),
            "none or zero",
        ),
    ]
