"""Reports of an AMD-shaped PKI with a root of ours: every state of a guest and its platform, and every lie."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from sconify.attestation.collateral import AmdCollateral, parse_certificate
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.judge import Mode
from sconify.attestation.proof import PROOF
from sconify.attestation.snp import VerifiedReport, verify_report
from sconify.attestation.snp_report import Product, SigningKey, SnpReport
from sconify.errors import BugError, UntrustedDataError
from tests.amd_pki import CHIP, NOW, AmdPki, Tcb
from tests.policies import MEASUREMENT, refusals, weighed

PKIS = {name: AmdPki(product=name, tcb=Tcb(snp=30 + at)) for at, name in enumerate(("Milan", "Genoa", "Turin"))}
MILAN = PKIS["Milan"]
SIGNED = f"id_key_digest: {'07' * 48}, guest_svn_min: 3, "
FLOOR = "minimum_tcb: {milan: {bootloader: 4, tee: 0, snp: 30, microcode: 219}}"
GUEST = f"measurement: {'51' * 48}, {FLOOR}"


def verified(
    pki: AmdPki = MILAN, *, at: int = NOW, kind: str = "VCEK", crl: Any = True, **report: Any
) -> VerifiedReport:
    if kind == "VLEK":
        report = {"key_info": 1 << 2, "chip": bytes(64), **report}
    parsed = SnpReport.parse(pki.report(**report))
    return verify_report(parsed, pki.vek(kind), pki.collateral(kind, crl=crl), at=at, test_root=pki.ark)


def judged(
    report: VerifiedReport, *, guest: str = GUEST, attestation: str = "tolerate: [simulated-platform]"
) -> list[str]:
    evidence = VerifiedEvidence(
        kind="snp", measurement=bytes.fromhex(MEASUREMENT), debug=False, platform=report, proof=PROOF
    )
    factors = f"{{mrenclave: {MEASUREMENT}, snp: {{{guest}}}}}"
    return refusals(weighed(evidence, factors=factors, attestation=attestation, mode=Mode.DEBUG, at=NOW))


@pytest.mark.parametrize("product", PKIS)
@pytest.mark.parametrize("version", [2, 3, 5])
def test_a_genuine_report(product: str, version: int) -> None:
    pki = PKIS[product]
    report = verified(pki, version=version, report_data=b"d" * 64, host_data=b"h" * 32)
    assert report.product == product
    assert report.report.product == (product if version > 2 else None)
    assert report.report.report_data == b"d" * 64
    assert report.report.host_data == b"h" * 32
    assert report.reported_tcb.snp == pki.tcb.snp
    assert report.reported_tcb.fmc == (1 if product == "Turin" else None)
    assert report.revocation_checked
    assert report.cloud is None
    assert report.test_root is not None


def test_a_key_that_a_cloud_shares() -> None:
    report = verified(kind="VLEK")
    assert report.cloud == "CN=cloud.example"
    assert report.report.signing_key is SigningKey.VLEK
    assert judged(report) == ["signing key"]
    assert judged(report, guest=f"{GUEST}, signing_keys: [vcek, vlek]") == []


def test_the_root_is_pinned_for_each_product() -> None:
    report = SnpReport.parse(MILAN.report())
    with pytest.raises(UntrustedDataError, match=r"check root: .*expected AMD's for Milan 69d063b4"):
        verify_report(report, MILAN.vek(), MILAN.collateral(), at=NOW)
    with pytest.raises(UntrustedDataError, match=r"check root: .*expected the trusted test root"):
        verify_report(report, MILAN.vek(), MILAN.collateral(), at=NOW, test_root=PKIS["Genoa"].ark)


def test_chains_that_do_not_hold() -> None:
    other = AmdPki(number=1)
    report = SnpReport.parse(MILAN.report())
    foreign_ask = AmdCollateral(ark=MILAN.ark, intermediate=other.ask, crl=None)
    with pytest.raises(UntrustedDataError, match=r"check chain: .*SEV-Milan.* is not signed by .*ARK-Milan"):
        verify_report(report, MILAN.vek(), foreign_ask, at=NOW, test_root=MILAN.ark)
    with pytest.raises(UntrustedDataError, match=r"check chain: .*SEV-VCEK.* is not signed by"):
        verify_report(report, other.vek(), MILAN.collateral(), at=NOW, test_root=MILAN.ark)
    same_chain = replace_key(MILAN)
    with pytest.raises(UntrustedDataError, match="check report signature"):
        verify_report(report, same_chain.vek(tcb=MILAN.tcb), MILAN.collateral(), at=NOW, test_root=MILAN.ark)


def replace_key(pki: AmdPki) -> AmdPki:
    """The same authorities, another chip's key."""
    other = AmdPki(product=pki.product, number=pki.number)
    for name in ("ark", "ask", "asvk"):
        other.__dict__[name] = getattr(pki, name)
    return other


@pytest.mark.parametrize("at", [NOW - 86401, NOW + 86401])
def test_a_certificate_or_list_that_is_not_valid_now(at: int) -> None:
    with pytest.raises(UntrustedDataError, match=r"check chain: .*and not at"):
        verified(at=at)
    report = SnpReport.parse(MILAN.report())
    vek = MILAN.vek(begins=NOW - 10**7, ends=NOW + 10**7)
    with pytest.raises(UntrustedDataError, match=r"check revocation list: .*and not at"):
        verify_report(report, vek, MILAN.collateral(), at=at, test_root=MILAN.ark)


def test_revocation() -> None:
    for certificate in (MILAN.ask, MILAN.ark):
        with pytest.raises(UntrustedDataError, match=r"check revocation list: .* is revoked"):
            verified(crl=MILAN.crl(revoked=[certificate]))
    vek = MILAN.vek()
    with pytest.raises(UntrustedDataError, match=r"SEV-VCEK.* is revoked"):
        verify_report(
            SnpReport.parse(MILAN.report()),
            vek,
            MILAN.collateral(crl=MILAN.crl(revoked=[vek])),
            at=NOW,
            test_root=MILAN.ark,
        )
    for foreign in (AmdPki(number=1).crl(), MILAN.crl(key=MILAN.ask_key), PKIS["Genoa"].crl()):
        with pytest.raises(UntrustedDataError, match="not signed by the root of this chain"):
            verified(crl=foreign)


def test_without_a_revocation_list_a_policy_must_say_so() -> None:
    report = verified(crl=None)
    assert not report.revocation_checked
    assert judged(report) == ["revocation list"]
    assert judged(report, attestation="tolerate: [simulated-platform, missing-revocation-list]") == []


@pytest.mark.parametrize(
    ("report", "why"),
    [
        ({"policy": 0xB_0000}, "check debug"),
        ({"policy": 0x1_0000}, "reserved bits"),
        ({"policy": 0x3_0000 | 1 << 26}, "reserved bits"),
        ({"version": 1}, "version 1"),
        ({"version": 4}, "version 4"),
        ({"version": 6}, "version 6"),
        ({"algorithm": 2}, "signature algorithm 2"),
        ({"key_info": 7 << 2}, "key info"),
        ({"key_info": 2 << 2}, "key info"),
        ({"key_info": 1 << 5}, "key info"),
        ({"key_info": 1 << 2}, "check signing key: the report names a VLEK"),
        ({"chip": bytes(64)}, "check chip"),
        ({"chip": CHIP[::-1]}, "check chip"),
        ({"tcbs": {"reported": Tcb(snp=29)}}, "check reported TCB"),
        ({"tcbs": {"reported": Tcb(snp=31)}}, "check reported TCB"),
        ({"cpuid": (0x19, 0x11)}, "check product: got a report of Genoa"),
        ({"cpuid": (0x17, 0x01)}, "CPU family"),
        ({"cpuid": (0x1A, 0x12)}, "CPU family"),
    ],
    ids=str,
)
def test_reports_that_no_policy_accepts(report: dict[str, Any], why: str) -> None:
    with pytest.raises(UntrustedDataError, match=why):
        verified(**report)


def test_certificates_for_something_else() -> None:
    report = SnpReport.parse(MILAN.report())
    for vek, why in (
        (MILAN.vek(chip=CHIP[::-1]), "check chip"),
        (MILAN.vek(tcb=Tcb(snp=31)), "check reported TCB"),
        (MILAN.vek(product="Genoa"), "check product"),
        (MILAN.vek(product="Rome"), "check product: got a key for 'Rome'"),
        (MILAN.ask, "check signing key: its certificate has no extension"),
    ):
        with pytest.raises(UntrustedDataError, match=why):
            verify_report(report, vek, MILAN.collateral(), at=NOW, test_root=MILAN.ark)
    with pytest.raises(UntrustedDataError, match="check signing key"):
        verify_report(report, MILAN.vek("VLEK"), MILAN.collateral("VLEK"), at=NOW, test_root=MILAN.ark)


def test_each_byte_of_a_report_counts() -> None:
    raw = MILAN.report()
    vek, collateral = MILAN.vek(), MILAN.collateral(crl=None)
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        if place >= 0x2A0 + 144:
            continue  # behind the signature: reserved, not signed, and never looked at
        with pytest.raises(UntrustedDataError):
            verify_report(SnpReport.parse(bytes(changed)), vek, collateral, at=NOW, test_root=MILAN.ark)


@pytest.mark.parametrize("kind", ["VCEK", "VLEK"])
def test_each_byte_of_the_certificate_counts(kind: str) -> None:
    """None crashes the reader of certificates, which reads most of them late, and none that is signed is accepted."""
    vlek = {"key_info": 1 << 2, "chip": bytes(64)} if kind == "VLEK" else {}
    report = SnpReport.parse(MILAN.report(**vlek))  # type: ignore[arg-type]
    vek, collateral = MILAN.vek(kind), MILAN.collateral(kind)
    content = vek.public_bytes(Encoding.DER)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        try:
            certificate = parse_certificate(bytes(changed), "VEK")
            verify_report(report, certificate, collateral, at=NOW, test_root=MILAN.ark)
        except UntrustedDataError:
            continue
        # The number of unused bits of the signature is not signed: the rest is what it was, to the last bit.
        assert certificate.tbs_certificate_bytes == vek.tbs_certificate_bytes
        assert certificate.signature == vek.signature


def test_what_tells_reports_apart_is_what_is_signed() -> None:
    raw = MILAN.report()
    tail = raw[:-1] + b"\1"
    identities = {
        verify_report(SnpReport.parse(data), MILAN.vek(), MILAN.collateral(), at=NOW, test_root=MILAN.ark).identity
        for data in (raw, tail)
    }
    assert len(identities) == 1


@pytest.mark.parametrize("size", [0, 1, 1183, 1185, 4000])
def test_only_one_size(size: int) -> None:
    with pytest.raises(UntrustedDataError, match=f"got {size} bytes, expected 1184"):
        SnpReport.parse((MILAN.report() * 4)[:size])


@given(st.binary(min_size=1184, max_size=1184), st.sampled_from([2, 3, 5]))
def test_any_bytes_give_a_report_or_a_refusal(content: bytes, version: int) -> None:
    for data in (content, version.to_bytes(4, "little") + content[4:]):
        try:
            report = SnpReport.parse(data)
        except UntrustedDataError:
            continue
        assert report.product in (None, *Product)


def test_verified_reports_can_not_be_made_without_verification() -> None:
    with pytest.raises(BugError):
        VerifiedReport(**{**verified().__dict__, "proof": object()})
    with pytest.raises(BugError):
        replace(verified(), proof=None)


@pytest.mark.parametrize(
    ("report", "guest", "refused"),
    [
        ({}, GUEST, []),
        ({"measurement": b"\x52" * 48}, GUEST, ["guest measurement"]),
        ({"vmpl": 1}, GUEST, ["VMPL"]),
        ({"vmpl": 1}, f"{GUEST}, vmpl: [0, 1]", []),
        ({"version": 2}, GUEST, ["report version"]),
        ({"version": 2}, f"{GUEST}, report_versions: 2", []),
        ({"policy": 0x7_0000}, GUEST, ["migration agent"]),
        ({"host_data": b"\1" * 32}, GUEST, ["host_data"]),
        ({"host_data": b"\1" * 32}, f"{GUEST}, host_data: {'01' * 32}", []),
        ({"host_data": b"\1" * 32}, f"{GUEST}, host_data: any", []),
        ({}, GUEST.replace("milan", "genoa"), ["product"]),
        ({"tcbs": {"committed": Tcb(snp=29)}}, GUEST, ["committed TCB"]),
        ({"tcbs": {"launch": Tcb(snp=29)}}, GUEST, ["launch TCB"]),
        ({"tcbs": {"current": Tcb(snp=30, microcode=218)}}, GUEST, ["current TCB"]),
        ({"id_key_digest": b"\7" * 48, "guest_svn": 3}, SIGNED + FLOOR, []),
        ({"id_key_digest": b"\7" * 48, "guest_svn": 2}, SIGNED + FLOOR, ["guest SVN"]),
        ({"id_key_digest": b"\6" * 48, "guest_svn": 3}, SIGNED + FLOOR, ["ID key"]),
    ],
    ids=str,
)
def test_what_factors_accept(report: dict[str, Any], guest: str, refused: list[str]) -> None:
    assert judged(verified(**report), guest=guest) == refused


def test_a_floor_above_the_platform() -> None:
    floor = GUEST.replace("microcode: 219", "microcode: 220")
    assert judged(verified(), guest=floor) == ["current TCB", "reported TCB", "committed TCB", "launch TCB"]


@pytest.mark.parametrize(
    ("word", "info", "holds"),
    [
        ("smt-disabled", 0x25, False),
        ("smt-disabled", 0x24, True),
        ("alias-check", 0x25, True),
        ("alias-check", 0x05, False),
        ("ciphertext-hiding", 0x25, False),
        ("ciphertext-hiding", 0x35, True),
        ("rapl-disabled", 0x2D, True),
        ("ecc", 0x21, False),
        ("static-platform", 0x00, True),  # says nothing of AMD's platforms
    ],
)
def test_what_a_policy_can_demand_of_a_platform(word: str, info: int, holds: bool) -> None:
    attestation = f"tolerate: [simulated-platform], require: [{word}]"
    refused = judged(verified(platform_info=info), attestation=attestation)
    assert refused == ([] if holds else [f"platform flag {word}"])
