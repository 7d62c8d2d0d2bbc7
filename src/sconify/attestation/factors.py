"""What must run, and where: evidence against the attestation factors of a policy."""

from __future__ import annotations

from collections.abc import Sequence

from sconify.attestation import sgx, simulated, vm
from sconify.attestation.checks import Check
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.intel import VerifiedQuote
from sconify.attestation.quote import SgxReport, TdReport
from sconify.attestation.snp import VerifiedReport
from sconify.attestation.snp_report import SnpTcb
from sconify.policy.attestation import ANY, MinimumTcb, Snp, Tdx
from sconify.policy.factors import Factor, Signer


def factor_checks(evidence: VerifiedEvidence, factors: Sequence[Factor]) -> list[Check]:
    """Return the checks of the factor that comes nearest to the evidence; one that holds as a whole is the nearest."""
    found = [checks for factor in factors if (checks := _checks(evidence, factor)) is not None]
    if not found:
        return [_no_factor(evidence, factors)]
    nearest = min(found, key=lambda checks: sum(not check.passed for check in checks))
    if len(found) == 1 or all(check.passed for check in nearest):
        return nearest
    # Each factor may expect another program: show all that would do.
    expected = sorted({check.expected for checks in found for check in checks if check.name == "measurement"})
    return [
        Check(check.name, check.passed, check.got, " or ".join(expected), check.remedy)
        if check.name == "measurement" and not check.passed
        else check
        for check in nearest
    ]


def _checks(evidence: VerifiedEvidence, factor: Factor) -> list[Check] | None:
    """Return the checks of a factor, or None if it is for another kind of platform."""
    platform = evidence.platform
    if evidence.kind == vm.TDX and factor.tdx is not None and isinstance(platform, VerifiedQuote):
        assert isinstance(platform.body, TdReport)
        return [*_tdx_checks(platform.body, factor.tdx), *_measurement_checks(evidence, factor)]
    if evidence.kind == vm.SNP and factor.snp is not None and isinstance(platform, VerifiedReport):
        return [*_snp_checks(platform, factor.snp), *_measurement_checks(evidence, factor)]
    if factor.in_vm:
        return None
    if evidence.kind == sgx.KIND and isinstance(platform, VerifiedQuote):
        assert isinstance(platform.body, SgxReport)
        signer = [] if factor.signer is None else _signer_checks(platform.body, factor.signer)
        return [*signer, *_measurement_checks(evidence, factor)]
    # What runs on the simulated platform has a measurement, but nobody signed it.
    if evidence.kind == simulated.KIND and factor.signer is None:
        return _measurement_checks(evidence, factor)
    return None


def _no_factor(evidence: VerifiedEvidence, factors: Sequence[Factor]) -> Check:
    parts = {sgx.KIND: "mrenclave or signer", simulated.KIND: "mrenclave"}
    wanted = sorted({_platform_of(factor) for factor in factors}) or ["none, for the policy names none"]
    return Check(
        "attestation factor",
        False,
        f"{evidence.kind} evidence",
        f"evidence for {' or '.join(wanted)}",
        f"add a factor with {parts.get(evidence.kind, evidence.kind)} to the service's attestation",
    )


def _platform_of(factor: Factor) -> str:
    return vm.TDX if factor.tdx is not None else vm.SNP if factor.snp is not None else sgx.KIND


def _measurement_checks(evidence: VerifiedEvidence, factor: Factor) -> list[Check]:
    if not factor.mrenclave:
        return []
    got = evidence.measurement.hex()
    return [
        Check(
            "measurement",
            got in factor.mrenclave or factor.mrenclave == (ANY,),
            got,
            " or ".join(sorted(factor.mrenclave)),
            "start the program as it was measured (same binary, same SCONE_HEAP and SCONE_STACK), "
            "or update the policy's mrenclave",
        )
    ]


def _signer_checks(report: SgxReport, signer: Signer) -> list[Check]:
    return [
        Check("signer", report.mrsigner.hex() == signer.mrsigner, report.mrsigner.hex(), signer.mrsigner),
        Check("product", report.isv_prod_id == signer.isvprodid, str(report.isv_prod_id), str(signer.isvprodid)),
        _version_check(report.isv_svn, signer),
    ]


def _version_check(got: int, signer: Signer) -> Check:
    low, high = signer.isvsvn_min, signer.isvsvn_max
    if signer.isvsvn is not None:
        return Check("version", got == signer.isvsvn, str(got), str(signer.isvsvn))
    if low is None:
        remedy = "add isvsvn_min to signer in the policy's factor: 0 accepts every version"
        return Check("version", False, str(got), "a version that the policy names", remedy)
    expected = f"{low} or later" if high is None else f"{low} to {high}"
    return Check("version", low <= got and (high is None or got <= high), str(got), expected)


def _register(name: str, got: bytes, accepted: Sequence[str]) -> Check:
    shown = "zero" if not any(got) else got.hex()
    expected = " or ".join("zero" if not value.strip("0") else value for value in accepted)
    remedy = f"add this value to {name} of the policy's factor"
    return Check(name, got.hex() in accepted or tuple(accepted) == (ANY,), shown, expected, remedy)


def _tdx_checks(report: TdReport, tdx: Tdx) -> list[Check]:
    checks = [
        _register("mrtd", report.mrtd, tdx.mrtd),
        *(_register(f"rtmr{number}", rtmr, getattr(tdx, f"rtmr{number}")) for number, rtmr in enumerate(report.rtmrs)),
        _register("mrconfigid", report.mrconfigid, tdx.mrconfigid),
        _register("mrowner", report.mrowner, tdx.mrowner),
        _register("mrownerconfig", report.mrownerconfig, tdx.mrownerconfig),
    ]
    if tdx.mrseam is not None:
        checks.append(_register("mrseam", report.mrseam, tdx.mrseam))
    if tdx.xfam is not None:
        checks.append(_register("xfam", report.xfam.to_bytes(8, "little"), tdx.xfam))
    return checks


def _snp_checks(verified: VerifiedReport, snp: Snp) -> list[Check]:
    report = verified.report
    checks = [
        Check(
            "report version",
            report.version in snp.report_versions,
            str(report.version),
            _listed(snp.report_versions),
            "add it to report_versions of the policy's factor",
        ),
        Check(
            "signing key",
            report.signing_key in snp.signing_keys,
            report.signing_key,
            _listed(snp.signing_keys),
            "add it to signing_keys of the policy's factor: a vlek does not say which chip",
        ),
        Check(
            "VMPL",
            report.vmpl in snp.vmpl,
            str(report.vmpl),
            _listed(snp.vmpl),
            "add it to vmpl of the policy's factor, if a paravisor runs above the guest",
        ),
        *_tcb_checks(verified, snp),
    ]
    if snp.measurement is not None:
        checks.append(_register("guest measurement", report.measurement, snp.measurement))
    if snp.id_key_digest is not None and snp.guest_svn_min is not None:
        checks.append(_register("ID key", report.id_key_digest, snp.id_key_digest))
        least = snp.guest_svn_min
        checks.append(Check("guest SVN", report.guest_svn >= least, str(report.guest_svn), f"{least} or later"))
    checks.append(_register("host_data", report.host_data, snp.host_data))
    return checks


def _tcb_checks(verified: VerifiedReport, snp: Snp) -> list[Check]:
    floor: MinimumTcb | None = getattr(snp.minimum_tcb, verified.product.lower())
    if floor is None:
        return [
            Check(
                "product",
                False,
                verified.product,
                "one that minimum_tcb names",
                f"add {verified.product.lower()} to minimum_tcb of the policy's factor",
            )
        ]
    least = SnpTcb(**floor.model_dump())
    return [
        Check(f"{name} TCB", _at_least(tcb, least), str(tcb), f"at least {least}", "update the platform's firmware")
        for name, tcb in verified.tcbs.items()
    ]


def _at_least(got: SnpTcb, least: SnpTcb) -> bool:
    pairs = (
        (got.bootloader, least.bootloader),
        (got.tee, least.tee),
        (got.snp, least.snp),
        (got.microcode, least.microcode),
        (got.fmc or 0, least.fmc or 0),
    )
    return all(have >= need for have, need in pairs)


def _listed(values: Sequence[object]) -> str:
    return " or ".join(str(value) for value in values)
