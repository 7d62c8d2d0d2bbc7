"""Quotes of an Intel-shaped PKI with a root of ours: every state of a platform, and every lie."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.collateral import IntelCollateral
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.intel import VerifiedQuote, verify_quote
from sconify.attestation.judge import Mode
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import Quote
from sconify.attestation.tcb import TcbStatus
from sconify.errors import BugError, UntrustedDataError
from tests.intel_pki import NOW, IntelPki, Level, State, sgx_body, td_body
from tests.policies import refusals, weighed

PKI = IntelPki()
BODIES = {"sgx": sgx_body(), "tdx 1.0": td_body(), "tdx 1.5": td_body(mrservicetd=bytes(48))}
SGX_FACTOR = f"{{mrenclave: {'11' * 32}}}"
DAY = 86400


def verified(
    body: bytes, *, at: int = NOW, pki: IntelPki = PKI, quote: bytes | None = None, **state: Any
) -> VerifiedQuote:
    parsed = Quote.parse(quote or pki.quote(body))
    return verify_quote(parsed, pki.collateral(parsed.tee, **state), at=at, test_root=PKI.root)


def judged(quote: VerifiedQuote, attestation: str, *, at: int = NOW) -> list[str]:
    """The names of the checks that fail when a policy wants this enclave, a test root being no reason."""
    evidence = VerifiedEvidence(kind="sgx", measurement=b"\x11" * 32, debug=False, platform=quote, proof=PROOF)
    words = "simulated-platform" + (", " if attestation.startswith("tolerate: [") else "]")
    attestation = (
        attestation.replace("tolerate: [", f"tolerate: [{words}", 1)
        if "tolerate: [" in attestation
        else (f"tolerate: [{words}, {attestation}" if attestation else f"tolerate: [{words}")
    )
    return refusals(weighed(evidence, factors=SGX_FACTOR, attestation=attestation, mode=Mode.DEBUG, at=at))


@pytest.mark.parametrize("kind", BODIES)
def test_a_genuine_quote(kind: str) -> None:
    quote = verified(BODIES[kind])
    assert quote.status is TcbStatus.UP_TO_DATE
    assert quote.advisories == ()
    assert quote.evaluation_data_number == 20
    assert quote.test_root is not None
    assert (quote.platform.fmspc.hex(), quote.platform.smt) == ("b0c06f000000", True)


def test_a_report_of_tdx_1_0_in_a_quote_of_version_5() -> None:
    assert verified(td_body(), quote=PKI.quote(td_body(), version=5)).status is TcbStatus.UP_TO_DATE


@pytest.mark.parametrize("version", [4, 5])
def test_enclaves_are_in_quotes_of_version_3_only(version: int) -> None:
    with pytest.raises(UntrustedDataError, match=f"got TEE type 0x0 in version {version}, expected 0x81"):
        verified(b"", quote=PKI.quote(sgx_body(), version=version))


def test_only_the_trusted_root_counts() -> None:
    quote = Quote.parse(PKI.quote(sgx_body()))
    with pytest.raises(UntrustedDataError, match=r"check root: .*expected Intel's 44a0196b"):
        verify_quote(quote, PKI.collateral("sgx"), at=NOW)
    with pytest.raises(UntrustedDataError, match=r"check root: .*expected the trusted test root"):
        verify_quote(quote, PKI.collateral("sgx"), at=NOW, test_root=IntelPki().root)


@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({"pck_revoked": True}, "the PCK certificate is revoked"),
        ({"issuer_revoked": True}, "the PCK issuer is revoked"),
        ({"wrong_crl_issuer": True}, "that of the PCK certificate is not signed by its issuer"),
        ({"fmspc": bytes(6)}, "check collateral: .*expected (SGX|TDX) b0c06f000000"),
        ({"qe_signer": bytes(32)}, "check QE identity"),
        ({"levels": (Level(status="Revoked"),)}, "check TCB level: got Revoked"),
        ({"levels": (Level(svn=6),)}, "no level for this platform"),
        ({"qe_status": "Revoked"}, "check TCB level: got Revoked"),
        ({"expires": NOW - 1}, "check collateral: it is valid from"),
        ({"issued": NOW + 1}, "check collateral: it is valid from"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_platforms_that_are_never_trusted(kind: str, state: dict[str, Any], why: str) -> None:
    with pytest.raises(UntrustedDataError, match=why):
        verified(BODIES[kind], **state)


def test_the_first_and_the_last_second_of_collateral() -> None:
    body = sgx_body()
    for at in (NOW - 10, NOW + 9):
        assert verified(body, at=at, issued=NOW - 10, expires=NOW + 10)
    for at in (NOW - 11, NOW + 10):
        with pytest.raises(UntrustedDataError, match="check collateral"):
            verified(body, at=at, issued=NOW - 10, expires=NOW + 10)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ({"qe_status": "OutOfDate"}, "OutOfDate"),
        ({"module_status": "OutOfDate"}, "OutOfDate"),
        ({"levels": (Level(status="ConfigurationNeeded"),), "qe_status": "OutOfDate"}, "OutOfDateConfigurationNeeded"),
        ({"levels": (Level(status="SWHardeningNeeded"),), "module_status": "OutOfDate"}, "OutOfDate"),
        ({"levels": (Level(svn=6), Level(svn=5, status="OutOfDate"))}, "OutOfDate"),
        ({"levels": (Level(svn=4, status="OutOfDate"), Level(svn=5))}, "UpToDate"),  # whatever their order
    ],
    ids=str,
)
def test_levels_come_together(state: dict[str, Any], status: str) -> None:
    assert verified(td_body(), **state).status == status


def test_a_module_that_is_revoked_or_not_known() -> None:
    with pytest.raises(UntrustedDataError, match="got Revoked"):
        verified(td_body(), module_status="Revoked")
    with pytest.raises(UntrustedDataError, match="has no module TDX_09"):
        verified(td_body(tee_tcb_svn=bytes([5, 9, 3]) + bytes(13)))
    with pytest.raises(UntrustedDataError, match="no level for this TDX module"):
        verified(td_body(tee_tcb_svn=bytes([4, 1, 3]) + bytes(13)))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (sgx_body(flags=0b111), "check debug"),
        (td_body(attributes=1 << 28 | 1), "check debug"),
        (td_body(attributes=0), "SEPT_VE_DISABLE"),
        (td_body(mrservicetd=b"\1" + bytes(47)), "(?i)service"),
        (td_body(mrsigner_seam=b"\1" + bytes(47)), "(?i)module|seam"),
    ],
)
def test_bodies_that_no_policy_accepts(body: bytes, why: str) -> None:
    with pytest.raises(UntrustedDataError, match=why):
        verified(body)


def test_headers_that_are_not_intels() -> None:
    with pytest.raises(UntrustedDataError, match="check QE vendor: got 00000000"):
        verified(b"", quote=PKI.quote(sgx_body(), vendor=bytes(16)))
    with pytest.raises(UntrustedDataError, match="check attestation key: got type 3"):
        verified(b"", quote=PKI.quote(sgx_body(), key_type=3))
    with pytest.raises(UntrustedDataError, match="check QE identity"):
        verified(b"", quote=PKI.quote(sgx_body(), qe_signer=b"\1" * 32))


@pytest.mark.parametrize("kind", BODIES)
def test_each_byte_that_is_signed_counts(kind: str) -> None:
    """One bit of each byte of the quote but the text of the certificates: some check fails, none with a crash."""
    raw = PKI.quote(BODIES[kind])
    collateral = PKI.collateral(Quote.parse(raw).tee)
    end = raw.index(b"-----BEGIN")
    for place in range(end):
        changed = bytearray(raw)
        changed[place] ^= 1 << (place % 8)
        with pytest.raises(UntrustedDataError):
            verify_quote(Quote.parse(bytes(changed)), collateral, at=NOW, test_root=PKI.root)


@pytest.mark.parametrize("number", range(3), ids=["PCK", "issuer", "root"])
def test_each_byte_of_the_chain_counts(number: int) -> None:
    """None crashes the reader of certificates, which reads most of them late, and none is accepted."""
    raw = PKI.quote(sgx_body())
    collateral = PKI.collateral("sgx")
    genuine = [one.public_bytes(Encoding.PEM) for one in (PKI.pck, PKI.ca, PKI.root)]
    content = (PKI.pck, PKI.ca, PKI.root)[number].public_bytes(Encoding.DER)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(changed) + b"-----END CERTIFICATE-----\n"
        chain = b"".join([*genuine[:number], pem, *genuine[number + 1 :]])
        at = raw.index(b"-----BEGIN")
        section = int.from_bytes(raw[432:436], "little") + len(chain) - (len(raw) - at)
        quote = raw[:432] + section.to_bytes(4, "little") + raw[436 : at - 4] + len(chain).to_bytes(4, "little") + chain
        with pytest.raises(UntrustedDataError):
            verify_quote(Quote.parse(quote), collateral, at=NOW, test_root=PKI.root)


def test_parts_of_another_quote_or_platform() -> None:
    other = IntelPki()
    raw, foreign = PKI.quote(sgx_body()), other.quote(sgx_body())
    signature, key, report = slice(436, 500), slice(500, 564), slice(564, 1012)
    for part, why in ((signature, "quote signature"), (key, "attestation key"), (report, "QE report signature")):
        swapped = raw[: part.start] + foreign[part] + raw[part.stop :]
        with pytest.raises(UntrustedDataError, match=f"check {why}"):
            verified(b"", quote=swapped)
    chain = raw.index(b"-----BEGIN")
    swapped = raw[:chain] + foreign[chain:]
    if len(swapped) == len(raw):  # else the length does not fit either
        with pytest.raises(UntrustedDataError):
            verified(b"", quote=swapped)


def test_collateral_of_a_foreign_root() -> None:
    """The platform is genuine; what is said about it is not signed by whom it must be."""
    other = IntelPki()
    quote = Quote.parse(PKI.quote(sgx_body()))
    theirs = other.collateral_document("sgx")
    for names in (
        ("tcb_info", "tcb_info_signature", "tcb_info_issuer_chain"),
        ("qe_identity", "qe_identity_signature", "qe_identity_issuer_chain"),
        ("tcb_info", "tcb_info_signature"),
        ("qe_identity", "qe_identity_signature"),
        ("pck_crl", "pck_crl_issuer_chain"),
        ("root_ca_crl",),
    ):
        mixed = {**PKI.collateral_document("sgx"), **{name: theirs[name] for name in names}}
        with pytest.raises(UntrustedDataError, match=r"check (quote|revocation list)"):
            verify_quote(quote, IntelCollateral.parse(json.dumps(mixed)), at=NOW, test_root=PKI.root)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("tcb_info", '"tcbEvaluationDataNumber":20', '"tcbEvaluationDataNumber":21'),
        ("tcb_info", '"tcbStatus":"OutOfDate"', '"tcbStatus":"UpToDate"'),
        ("tcb_info", '"pcesvn":13', '"pcesvn":12'),
        ("tcb_info", '{"id"', '{ "id"'),
        ("qe_identity", '"tcbEvaluationDataNumber":20', '"tcbEvaluationDataNumber":21'),
        ("qe_identity", '"isvsvn":8', '"isvsvn":7'),
    ],
)
def test_edited_collateral(name: str, old: str, new: str) -> None:
    document = PKI.collateral_document("sgx", State(levels=(Level(status="OutOfDate"),)))
    assert old in document[name]
    document[name] = document[name].replace(old, new)
    with pytest.raises(UntrustedDataError, match=r"check quote: .*(?i:signature)"):
        verify_quote(
            Quote.parse(PKI.quote(sgx_body())),
            IntelCollateral.parse(json.dumps(document)),
            at=NOW,
            test_root=PKI.root,
        )


def test_collateral_of_the_other_tee() -> None:
    quote = Quote.parse(PKI.quote(sgx_body()))
    with pytest.raises(UntrustedDataError, match="check collateral: got TCB information for TDX"):
        verify_quote(quote, PKI.collateral("tdx"), at=NOW, test_root=PKI.root)


def test_a_quote_is_known_by_what_is_signed() -> None:
    raw = PKI.quote(sgx_body())
    assert verified(b"", quote=raw).identity == verified(b"", quote=raw + bytes(100)).identity
    # The library takes white space within the chain for nothing: so must what tells quotes apart.
    at = raw.index(b"-----BEGIN")
    (size,) = (int.from_bytes(raw[at - 4 : at], "little"),)
    section = int.from_bytes(raw[432:436], "little")
    spaced = raw[:432] + (section + 1).to_bytes(4, "little") + raw[436 : at - 4]
    spaced += (size + 1).to_bytes(4, "little") + raw[at:].replace(b"-----\n", b"-----\n\n", 1)
    assert verified(b"", quote=spaced).identity == verified(b"", quote=raw).identity


def test_verified_quotes_can_not_be_made_without_verification() -> None:
    quote = verified(sgx_body())
    with pytest.raises(BugError):
        VerifiedQuote(**{**quote.__dict__, "proof": object()})


SW = {"levels": (Level(status="SWHardeningNeeded", advisories=("INTEL-SA-00615",)),)}
CONFIGURATION = {"levels": (Level(status="ConfigurationNeeded", advisories=("INTEL-SA-00289",)),)}
BOTH = {"levels": (Level(status="ConfigurationAndSWHardeningNeeded", advisories=("INTEL-SA-00289", "INTEL-SA-00615")),)}
OLD: dict[str, Any] = {"levels": (Level(svn=6), Level(svn=5, status="OutOfDate", advisories=("INTEL-SA-00657",)))}
OLD_BOTH = {"levels": (Level(status="OutOfDateConfigurationNeeded", advisories=("INTEL-SA-00289",)),)}


@pytest.mark.parametrize(
    ("state", "attestation", "refused"),
    [
        ({}, "", []),
        (SW, "", ["TCB status", "advisories"]),
        (SW, "tolerate: [software-hardening-needed]", ["advisories"]),
        (SW, "ignore_advisories: [INTEL-SA-00615]", ["TCB status"]),
        (SW, "tolerate: [software-hardening-needed], ignore_advisories: [INTEL-SA-00615]", []),
        (SW, "tolerate: [software-hardening-needed], ignore_advisories: [intel-sa-00615]", []),
        (SW, "tolerate: [software-hardening-needed], ignore_advisories: '*'", []),
        (SW, "tolerate: [software-hardening-needed], ignore_advisories: [INTEL-SA-00614]", ["advisories"]),
        (SW, "tolerate: [insecure-configuration], ignore_advisories: [INTEL-SA-00615]", ["TCB status"]),
        (CONFIGURATION, "tolerate: [insecure-configuration], ignore_advisories: [INTEL-SA-00289]", []),
        (CONFIGURATION, "tolerate: [software-hardening-needed], ignore_advisories: '*'", ["TCB status"]),
        (BOTH, "tolerate: [insecure-configuration], ignore_advisories: '*'", ["TCB status"]),
        (BOTH, "tolerate: [insecure-configuration, software-hardening-needed], ignore_advisories: '*'", []),
        (OLD, "tolerate: [outdated-tcb], ignore_advisories: [INTEL-SA-00657]", ["TCB status"]),
        (OLD, "tolerate: [outdated-tcb, aepic-leak], outdated_tcb_until: 2026-06-01", []),
        (OLD, "tolerate: [outdated-tcb, aepic-leak], outdated_tcb_until: 2026-05-31", ["TCB status"]),
        (OLD, "tolerate: [outdated-tcb], outdated_tcb_until: 2026-06-01", ["advisories"]),
        (OLD_BOTH, "tolerate: [outdated-tcb], ignore_advisories: '*', outdated_tcb_until: 2026-06-01", ["TCB status"]),
        ({}, "min_tcb_evaluation_data_number: 20", []),
        ({}, "min_tcb_evaluation_data_number: 21", ["TCB evaluation data number"]),
        ({}, "require: [smt-disabled]", ["platform flag smt-disabled"]),
        (
            {},
            "require: [static-platform, no-cached-keys]",
            ["platform flag static-platform", "platform flag no-cached-keys"],
        ),
        ({}, "require: [alias-check]", []),  # says nothing of Intel's platforms
    ],
)
def test_what_policies_put_up_with(state: dict[str, Any], attestation: str, refused: list[str]) -> None:
    assert judged(verified(sgx_body(), **state), attestation) == refused


def test_an_outdated_platform_is_tolerated_to_the_last_second_of_the_day() -> None:
    quote = verified(sgx_body(), **OLD)
    policy = "tolerate: [outdated-tcb, aepic-leak], outdated_tcb_until: 2026-06-03"
    assert judged(quote, policy, at=NOW + 3 * DAY - 1) == []
    assert judged(quote, policy, at=NOW + 3 * DAY) == ["TCB status"]


def test_a_platform_without_smt() -> None:
    pki = IntelPki(root_key=PKI.root_key, smt=False)
    pki.__dict__["root"] = PKI.root
    assert judged(verified(sgx_body(), pki=pki), "require: [smt-disabled]") == []


def test_a_signer_whose_key_is_public() -> None:
    signer = bytes.fromhex("83d719e77deaca1470f6baf62a4d774303c899db69020f9c70ee1dfc08c7ce9e")
    assert judged(verified(sgx_body(mrsigner=signer)), "") == ["published signer"]
