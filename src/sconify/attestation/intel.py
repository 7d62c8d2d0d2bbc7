"""Verify Intel quotes (SGX and TDX): twice, by ``dcap-qvl`` and by a second check of our own.

``dcap-qvl`` verifies everything that Intel's own library does, but applies no policy: it accepts platforms that are out
of date. What a quote is worth is decided in ``sconify.attestation.judge``. The second check (certificate chain, both
signatures, the binding of the attestation key, vendor, debug, TCB level, report) must come to the same result, so that
a defect of one of the two is not enough to be believed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.collateral import IntelCollateral
from sconify.attestation.malformed import refused_if_malformed
from sconify.attestation.pck import PlatformCertificate
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import ECDSA_P256, INTEL_QE_VENDOR, Quote, SgxReport, TdReport, Tee
from sconify.attestation.tcb import Grade, TcbStatus, grade
from sconify.errors import BugError, UntrustedDataError

INTEL_ROOT_SHA256: Final = bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")
"""SHA-256 of the Intel SGX Root CA's certificate in DER."""

_RELAUNCH = {
    TcbStatus.TD_RELAUNCH_ADVISED: TcbStatus.OUT_OF_DATE,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
}


@dataclass(frozen=True, kw_only=True)
class VerifiedQuote:
    """A quote that Intel's (or a test's) platform made. Whether it is good enough is for a policy to say.

    Attributes:
        tee: What the report is of.
        body: The report.
        status: What the platform is worth.
        advisories: The advisories that concern it, sorted.
        tcb_date: When its TCB level was current.
        evaluation_data_number: How new the evaluation is by which that was decided.
        platform: What its PCK certificate says.
        qe_id: The id of the quoting enclave on its platform, 16 bytes.
        valid_from: When all of the collateral had been issued.
        valid_until: When the first part of the collateral expires.
        identity: SHA-256 of what is signed: the only thing that can tell quotes apart.
        test_root: SHA-256 of the root that was trusted in place of Intel's, or None.
    """

    tee: Tee
    body: SgxReport | TdReport
    status: TcbStatus
    advisories: tuple[str, ...]
    tcb_date: datetime
    evaluation_data_number: int
    platform: PlatformCertificate
    qe_id: bytes
    valid_from: datetime
    valid_until: datetime
    identity: bytes
    test_root: bytes | None
    proof: InitVar[object] = field(kw_only=True)

    def __post_init__(self, proof: object) -> None:
        if proof is not PROOF:
            raise BugError("VerifiedQuote was made without verification")


@dataclass(frozen=True, kw_only=True)
class GenuineQuote:
    """A quote that the platform made which its PCK certificate names, by a chain to the root. Nothing else is known.

    Attributes:
        quote: The quote.
        platform: What the PCK certificate says.
        issuer: The common name of who issued it: which revocation list is for it.
        test_root: The root that was trusted in place of Intel's, or None.
    """

    quote: Quote
    platform: PlatformCertificate
    issuer: str
    test_root: x509.Certificate | None
    proof: InitVar[object] = field(kw_only=True)

    def __post_init__(self, proof: object) -> None:
        if proof is not PROOF:
            raise BugError("GenuineQuote was made without verification")


def verify_quote(
    quote: Quote, collateral: IntelCollateral, *, at: int, test_root: x509.Certificate | None = None
) -> VerifiedQuote:
    """Verify a quote: its origin, and its platform by the collateral for it.

    Args:
        quote: The quote.
        collateral: The collateral for its platform.
        at: The time, in seconds since 1970, by our own clock.
        test_root: A root that is trusted in place of Intel's, for tests.

    Raises:
        UntrustedDataError: It is not genuine, its platform is a debug one or not supported, or the collateral is not
            Intel's, for another platform, or not valid at that time.
    """
    return verify_platform(verify_origin(quote, test_root=test_root), collateral, at=at)


def verify_origin(quote: Quote, *, test_root: x509.Certificate | None = None) -> GenuineQuote:
    """Verify that a quote comes from a platform with a PCK certificate, as far as that can be without collateral.

    Raises:
        UntrustedDataError: It does not, or what it is about can be debugged.
    """
    _check_vendor(quote)
    _check_debug(quote)
    with refused_if_malformed("check PCK chain"):
        _check_chain(quote, test_root)
        _check_signatures(quote)
    names = quote.chain[1].subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return GenuineQuote(
        quote=quote,
        platform=PlatformCertificate.parse(quote.chain[0]),
        issuer=str(names[0].value) if names else "",
        test_root=test_root,
        proof=PROOF,
    )


def verify_platform(genuine: GenuineQuote, collateral: IntelCollateral, *, at: int) -> VerifiedQuote:
    """Verify the platform of a genuine quote by the collateral for it.

    Args:
        genuine: The quote.
        collateral: The collateral for its platform.
        at: The time, in seconds since 1970, by our own clock.

    Raises:
        UntrustedDataError: The platform is revoked or not supported, or the collateral is not the root's, for another
            platform, or not valid at that time.
    """
    quote, platform, test_root = genuine.quote, genuine.platform, genuine.test_root
    _check_collateral(quote, collateral, platform, at)
    with refused_if_malformed("check revocation list"):
        _check_revocation(quote, collateral)
    qe_report = SgxReport.parse(quote.qe_report)
    _check_quoting_enclave(quote, qe_report, collateral)
    ours = grade(
        collateral.tcb_info,
        collateral.qe_identity,
        platform=platform,
        body=quote.body,
        qe_svn=qe_report.isv_svn,
    )
    if ours.status is TcbStatus.REVOKED:
        raise UntrustedDataError("check TCB level: got Revoked, which nothing can be trusted with")
    claims = _verify_by_library(quote, collateral, at, test_root)
    status = _agreed_status(claims, ours)
    _check_same_report(claims, quote)
    return VerifiedQuote(
        tee=quote.tee,
        body=quote.body,
        status=status,
        advisories=tuple(sorted({*ours.advisories, *claims["tcb"]["advisory_ids"]})),
        tcb_date=ours.date,
        evaluation_data_number=collateral.evaluation_data_number,
        platform=platform,
        qe_id=quote.qe_id,
        valid_from=collateral.valid_from,
        valid_until=collateral.valid_until,
        identity=hashlib.sha256(quote.signed).digest(),
        test_root=None if test_root is None else test_root.fingerprint(SHA256()),
        proof=PROOF,
    )


def _check_vendor(quote: Quote) -> None:
    if quote.vendor != INTEL_QE_VENDOR:
        raise UntrustedDataError(f"check QE vendor: got {quote.vendor.hex()}, expected Intel's {INTEL_QE_VENDOR.hex()}")
    if quote.key_type != ECDSA_P256:
        raise UntrustedDataError(f"check attestation key: got type {quote.key_type}, expected 2: ECDSA with P-256")


def _check_debug(quote: Quote) -> None:
    if quote.body.debug:
        what = "enclave" if quote.tee == "sgx" else "trust domain"
        raise UntrustedDataError(
            f"check debug: got a debug {what}, expected a production one: its owner can read every secret",
            remedy="start it without debug, or develop on the simulated platform",
        )


def _check_chain(quote: Quote, test_root: x509.Certificate | None) -> None:
    if len(quote.chain) != 3:
        raise UntrustedDataError(f"check PCK chain: got {len(quote.chain)} certificates, expected 3")
    leaf, issuer, root = quote.chain
    expected = INTEL_ROOT_SHA256 if test_root is None else test_root.fingerprint(SHA256())
    if not hmac.compare_digest(root.fingerprint(SHA256()), expected):
        whose = "Intel's" if test_root is None else "the trusted test root"
        raise UntrustedDataError(
            f"check root: got {root.fingerprint(SHA256()).hex()}, expected {whose} {expected.hex()}"
        )
    for certificate, by in ((leaf, issuer), (issuer, root), (root, root)):
        try:
            certificate.verify_directly_issued_by(by)
        except (ValueError, TypeError, InvalidSignature):
            name = certificate.subject.rfc4514_string()
            raise UntrustedDataError(f"check PCK chain: {name} is not signed by the next certificate") from None


def _check_signatures(quote: Quote) -> None:
    pck_key = quote.chain[0].public_key()
    if not isinstance(pck_key, ec.EllipticCurvePublicKey):
        raise UntrustedDataError("check PCK chain: the PCK certificate has no key of P-256")
    _check_signature(pck_key, quote.qe_signature, quote.qe_report, "QE report signature")
    bound = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + bytes(32)
    if not hmac.compare_digest(SgxReport.parse(quote.qe_report).report_data, bound):
        raise UntrustedDataError("check attestation key: the quoting enclave does not vouch for it")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + quote.attestation_key)
    except ValueError:
        raise UntrustedDataError("check attestation key: it is no point of P-256") from None
    _check_signature(key, quote.signature, quote.signed, "quote signature")


def _check_signature(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, what: str) -> None:
    encoded = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
    try:
        key.verify(encoded, message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        raise UntrustedDataError(f"check {what}: it is not over this quote") from None


def _check_collateral(quote: Quote, collateral: IntelCollateral, platform: PlatformCertificate, at: int) -> None:
    info = collateral.tcb_info
    expected = (quote.tee.upper(), platform.fmspc, platform.pce_id)
    if (info.id, info.fmspc, info.pce_id) != expected:
        raise UntrustedDataError(
            f"check collateral: got TCB information for {info.id} {info.fmspc.hex()} PCE {info.pce_id.hex()}, "
            f"expected {expected[0]} {platform.fmspc.hex()} PCE {platform.pce_id.hex()}"
        )
    try:
        now = datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        raise UntrustedDataError(f"check collateral: {at} is no time") from None
    if not collateral.valid_from <= now < collateral.valid_until:
        raise UntrustedDataError(
            f"check collateral: it is valid from {collateral.valid_from:%Y-%m-%d %H:%M:%SZ} to "
            f"{collateral.valid_until:%Y-%m-%d %H:%M:%SZ}, and not at {now:%Y-%m-%d %H:%M:%SZ}",
            remedy="fetch newer collateral, or import it with `sconify cas collateral import`",
        )


def _check_revocation(quote: Quote, collateral: IntelCollateral) -> None:
    leaf, issuer, root = quote.chain
    lists = ((collateral.pck_crl, issuer, leaf, "PCK certificate"), (collateral.root_crl, root, issuer, "PCK issuer"))
    for crl, by, certificate, what in lists:
        key = by.public_key()
        if (
            crl.issuer != by.subject
            or not isinstance(key, ec.EllipticCurvePublicKey)
            or not crl.is_signature_valid(key)
        ):
            raise UntrustedDataError(f"check revocation list: that of the {what} is not signed by its issuer")
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise UntrustedDataError(f"check revocation list: the {what} is revoked")


def _check_quoting_enclave(quote: Quote, report: SgxReport, collateral: IntelCollateral) -> None:
    identity = collateral.qe_identity
    expected = ("QE" if quote.tee == "sgx" else "TD_QE", report.mrsigner, report.isv_prod_id)
    if (identity.id, identity.mrsigner, identity.isv_prod_id) != expected or report.debug:
        raise UntrustedDataError(
            f"check QE identity: got {expected[0]} {report.mrsigner.hex()} product {report.isv_prod_id}, "
            f"expected {identity.id} {identity.mrsigner.hex()} product {identity.isv_prod_id}, no debug enclave"
        )


def _verify_by_library(
    quote: Quote, collateral: IntelCollateral, at: int, test_root: x509.Certificate | None
) -> dict[str, Any]:
    root = None if test_root is None else test_root.public_bytes(Encoding.DER)
    policy = dcap_qvl.QuotePolicy.claims_only(at)
    try:
        claims = dcap_qvl.QuoteVerifier(root).verify_with_policy(quote.encoding, collateral.for_library, at, policy)
    except ValueError as error:
        reason = str(error).removeprefix("Verification failed: ").replace("\n", " ")[:200]
        raise UntrustedDataError(f"check quote: {reason}") from None
    document: dict[str, Any] = json.loads(claims.to_json())
    return document


def _agreed_status(claims: dict[str, Any], ours: Grade) -> TcbStatus:
    """Return the status on which both verifications agree.

    Whether a trust domain that is out of date only needs to be started again, the library alone decides: for us it is
    out of date.
    """
    try:
        theirs = TcbStatus(claims["tcb"]["status"])
    except ValueError:
        raise UntrustedDataError(f"check TCB level: {claims['tcb']['status']!r} is no known status") from None
    if _RELAUNCH.get(theirs, theirs) is not ours.status:
        raise UntrustedDataError(f"check TCB level: one verification says {theirs}, the other one {ours.status}")
    return theirs


def _check_same_report(claims: dict[str, Any], quote: Quote) -> None:
    body = quote.body
    ((kind, report),) = claims["report"].items()
    if isinstance(body, SgxReport):
        same = kind == "SgxEnclave" and (report["mr_enclave"], report["mr_signer"], report["report_data"]) == (
            body.mrenclave.hex(),
            body.mrsigner.hex(),
            body.report_data.hex(),
        )
    else:
        base = report.get("base", report)
        registers = tuple(base[f"rt_mr{number}"] for number in range(4))
        same = (
            kind in ("TD10", "TD15")
            and registers == tuple(rtmr.hex() for rtmr in body.rtmrs)
            and (base["mr_td"], base["mr_config_id"], base["report_data"])
            == (body.mrtd.hex(), body.mrconfigid.hex(), body.report_data.hex())
        )
    if not same:
        raise UntrustedDataError("check report: both verifications read different measurements")
