"""Real evidence gives what its ``expected.json`` says, under the default policy and under tolerant ones."""

from __future__ import annotations

from datetime import datetime

import pytest

from sconify.attestation.collateral import parse_certificate
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.intel import VerifiedQuote, verify_quote
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import Quote, SgxReport, TdReport
from sconify.attestation.ratls import RaTlsCertificate
from sconify.attestation.snp import VerifiedReport, verify_report
from sconify.attestation.snp_report import SnpReport
from sconify.errors import UntrustedDataError
from tests import attestation_vectors
from tests.attestation_vectors import IntelVector, SnpVector, needs_vectors
from tests.policies import MEASUREMENT, refusals, weighed

pytestmark = needs_vectors

TOLERANT = (
    "tolerate: [software-hardening-needed, insecure-configuration, outdated-tcb], "
    "ignore_advisories: [INTEL-SA-00289, INTEL-SA-00615, INTEL-SA-00960, INTEL-SA-00982, INTEL-SA-00986], "
    "outdated_tcb_until: 2030-01-01"
)


@pytest.fixture(params=attestation_vectors.names("intel"))
def intel(request: pytest.FixtureRequest) -> IntelVector:
    return attestation_vectors.intel(request.param)


@pytest.fixture(params=attestation_vectors.names("snp"))
def snp(request: pytest.FixtureRequest) -> SnpVector:
    return attestation_vectors.snp(request.param)


def judged(quote: VerifiedQuote, attestation: str, *, at: int) -> list[str]:
    body = quote.body
    if isinstance(body, SgxReport):
        measurement, factors = body.mrenclave, f"{{mrenclave: {body.mrenclave.hex()}}}"
    else:
        measurement = bytes.fromhex(MEASUREMENT)
        rtmrs = ", ".join(f"rtmr{number}: {rtmr.hex()}" for number, rtmr in enumerate(body.rtmrs))
        registers = f"mrtd: {body.mrtd.hex()}, {rtmrs}, mrconfigid: {body.mrconfigid.hex()}"
        registers += f", mrowner: {body.mrowner.hex()}, mrownerconfig: {body.mrownerconfig.hex()}"
        factors = f"{{mrenclave: {MEASUREMENT}, tdx: {{{registers}}}}}"
    evidence = VerifiedEvidence(kind=quote.tee, measurement=measurement, debug=body.debug, platform=quote, proof=PROOF)
    return refusals(weighed(evidence, factors=factors, attestation=attestation, at=at))


def test_intel_quotes(intel: IntelVector) -> None:
    expected = intel.expected
    quote = Quote.parse(intel.raw)
    body = quote.body
    assert (quote.tee, quote.version) == (expected["tee"].lower(), expected["quote_version"])
    assert body.debug == expected["debug"]
    if isinstance(body, TdReport):
        assert body.mrtd.hex() == expected["mrtd"]
        assert body.mrseam.hex() == expected["mrseam"]
        assert [rtmr.hex() for rtmr in body.rtmrs] == expected["rtmr"]
        assert body.tee_tcb_svn.hex() == expected["tee_tcb_svn"]
        assert body.td_attributes.to_bytes(8, "little").hex() == expected["td_attr"]
        assert (body.mrservicetd.hex() if body.mrservicetd else None) == expected.get("mrservicetd")
        assert body.report_data.hex() == expected["report_data"]
    else:
        assert (body.mrenclave.hex(), body.mrsigner.hex()) == (expected["mrenclave"], expected["mrsigner"])
        assert (body.isv_prod_id, body.isv_svn) == (expected["prodid"], expected["svn"])
    status = expected["dcap_qvl_0_7_0"]["status"]
    if status == "ERR":
        with pytest.raises(UntrustedDataError):
            verify_quote(quote, intel.collateral, at=intel.at)
        return
    verified = verify_quote(quote, intel.collateral, at=intel.at)
    assert (verified.status, verified.test_root) == (status, None)
    assert list(verified.advisories) == expected["dcap_qvl_0_7_0"]["detail"]
    assert verified.platform.fmspc.hex() == expected["fmspc"]
    accepted = expected["policy_strict+platform_flags"] == "accept"
    assert (judged(verified, "", at=intel.at) == []) == accepted
    assert judged(verified, TOLERANT, at=intel.at) == []


def test_intel_quotes_outside_the_window_of_their_collateral(intel: IntelVector) -> None:
    quote = Quote.parse(intel.raw)
    begins = int(datetime.fromisoformat(intel.expected["valid_from"]).timestamp())
    ends = int(datetime.fromisoformat(intel.expected["valid_until"]).timestamp())
    assert begins <= intel.collateral.valid_from.timestamp() <= intel.at
    assert intel.at < intel.collateral.valid_until.timestamp() <= ends
    for at in (0, begins - 1, ends + 1, 2**40, 2**70, -1):
        with pytest.raises(UntrustedDataError):
            verify_quote(quote, intel.collateral, at=at)


def test_the_outdated_platforms_need_more_than_one_word() -> None:
    vector = attestation_vectors.intel("tdx_v4_outofdate")
    verified = verify_quote(Quote.parse(vector.raw), vector.collateral, at=vector.at)
    assert judged(verified, "", at=vector.at) == ["TCB status", "advisories"]
    assert judged(verified, "tolerate: [outdated-tcb], ignore_advisories: '*'", at=vector.at) == ["TCB status"]
    expired = TOLERANT.replace("2030-01-01", "2024-01-01")
    assert judged(verified, expired, at=vector.at) == ["TCB status"]


def test_a_platform_flag_that_every_cloud_has() -> None:
    vector = attestation_vectors.intel("tdx_v4_uptodate")
    verified = verify_quote(Quote.parse(vector.raw), vector.collateral, at=vector.at)
    assert "Dynamic platform" in vector.expected["policy_strict"]
    assert judged(verified, "require: [static-platform]", at=vector.at) == ["platform flag static-platform"]


def test_flipped_bits_of_intel_quotes(intel: IntelVector) -> None:
    end = intel.raw.index(b"-----BEGIN")
    for place in range(0, end, 7):
        changed = bytearray(intel.raw)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(UntrustedDataError):
            verify_quote(Quote.parse(bytes(changed)), intel.collateral, at=intel.at)


def test_collateral_of_another_platform(intel: IntelVector) -> None:
    for name in attestation_vectors.names("intel"):
        other = attestation_vectors.intel(name)
        if other.expected["fmspc"] != intel.expected["fmspc"] or other.expected["tee"] != intel.expected["tee"]:
            with pytest.raises(UntrustedDataError):
                verify_quote(Quote.parse(intel.raw), other.collateral, at=intel.at)


def snp_verified(snp: SnpVector, *, at: int | None = None) -> VerifiedReport:
    certificate = parse_certificate(snp.certificate, "VEK")
    return verify_report(SnpReport.parse(snp.raw), certificate, snp.collateral, at=snp.at if at is None else at)


def test_snp_reports(snp: SnpVector) -> None:
    expected = snp.expected
    report = SnpReport.parse(snp.raw)
    assert (report.version, report.vmpl, report.guest_svn) == (
        expected["version"],
        expected["vmpl"],
        expected["guest_svn"],
    )
    assert hex(report.policy) == expected["policy"]
    assert hex(report.platform_info) == expected["plat_info"]
    assert (report.debug, report.migratable) == (expected["debug"], expected["migrate_ma"])
    for name in ("report_data", "measurement", "host_data", "chip_id", "reported_tcb", "current_tcb", "committed_tcb"):
        assert getattr(report, name).hex() == expected[name]
    assert report.launch_tcb.hex() == expected["launch_tcb"]
    assert report.signing_key == expected["signing_key"].lower()
    if expected["debug"]:
        with pytest.raises(UntrustedDataError, match="check debug"):
            snp_verified(snp)
        return
    verified = snp_verified(snp)
    assert verified.product.lower() == expected["name"].split("_")[0]
    assert verified.test_root is None
    assert not verified.revocation_checked
    for at in (0, snp.expired, 2**40):
        with pytest.raises(UntrustedDataError, match="check chain"):
            snp_verified(snp, at=at)


def test_snp_reports_under_policies(snp: SnpVector) -> None:
    if snp.expected["debug"]:
        pytest.skip("it is a debug guest, which verification refuses already")
    verified = snp_verified(snp)
    evidence = VerifiedEvidence(
        kind="snp", measurement=bytes.fromhex(MEASUREMENT), debug=False, platform=verified, proof=PROOF
    )
    floor = ", ".join(f"{name}: {value}" for name, value in verified.reported_tcb.__dict__.items() if value is not None)
    report = verified.report
    guest = (
        f"measurement: {report.measurement.hex()}, host_data: {report.host_data.hex()}, "
        f"minimum_tcb: {{{verified.product.lower()}: {{{floor}}}}}"
    )
    listless = "tolerate: [missing-revocation-list]"

    def judged(guest: str, attestation: str) -> list[str]:
        factors = f"{{mrenclave: {MEASUREMENT}, snp: {{{guest}}}}}"
        return refusals(weighed(evidence, factors=factors, attestation=attestation, at=snp.at))

    # No vector comes with AMD's revocation list: the default policy refuses each of them for it.
    assert "revocation list" in judged(guest, "")
    weak = []
    if report.version == 2:
        weak.append("report version")
    if report.signing_key == "vlek":
        weak += ["signing key", "VMPL"]
    assert judged(guest, listless) == weak
    assert judged(f"{guest}, report_versions: [2, 3, 5], signing_keys: [vcek, vlek], vmpl: [0, 1]", listless) == []


def test_flipped_bits_of_snp_reports(snp: SnpVector) -> None:
    for place in range(0, 0x2A0 + 144, 5):
        changed = bytearray(snp.raw)
        changed[place] ^= 1 << (place % 8)
        certificate = parse_certificate(snp.certificate, "VEK")
        with pytest.raises(UntrustedDataError):
            verify_report(SnpReport.parse(bytes(changed)), certificate, snp.collateral, at=snp.at)


def test_foreign_chips_and_chains(snp: SnpVector) -> None:
    report = SnpReport.parse(snp.raw)
    for name in attestation_vectors.names("snp"):
        other = attestation_vectors.snp(name)
        if other.certificate != snp.certificate:
            foreign = parse_certificate(other.certificate, "VEK")
            for collateral in (other.collateral, snp.collateral):
                with pytest.raises(UntrustedDataError):
                    verify_report(report, foreign, collateral, at=snp.at)


@pytest.mark.parametrize("name", ["gramine-cert", "intel-sgxsdk-cert"])
def test_certificates_with_quotes(name: str) -> None:
    certificate = RaTlsCertificate.parse(attestation_vectors.ratls(name))
    assert certificate.quote.version == 3
    assert certificate.quote.body.debug
    certificate.require_peer(certificate.spki)
    with pytest.raises(UntrustedDataError, match="check TLS key"):
        certificate.require_peer(certificate.spki[:-1] + b"\0")
    collateral = attestation_vectors.intel("sgx_v3_debug_outofdate").collateral
    with pytest.raises(UntrustedDataError, match="check debug"):
        verify_quote(certificate.quote, collateral, at=1756530546)
