"""Verify SEV-SNP reports: the chain from AMD's root to the key of the chip, the signature, and what the key is for.

The steps are those of AMD's *VCEK Certificate and KDS Interface Specification* (document 57230) and of the firmware's
ABI specification (56860).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from sconify.attestation import der
from sconify.attestation.collateral import AmdCollateral, next_update
from sconify.attestation.malformed import refused_if_malformed
from sconify.attestation.proof import PROOF
from sconify.attestation.snp_report import Product, SigningKey, SnpReport, SnpTcb
from sconify.errors import BugError, UntrustedDataError

ARK_SHA256: Final[Mapping[Product, bytes]] = {
    Product.MILAN: bytes.fromhex("69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"),
    Product.GENOA: bytes.fromhex("4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1"),
    Product.TURIN: bytes.fromhex("1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a"),
}
"""SHA-256 of the certificates of AMD's root keys in DER."""

_VEK = "1.3.6.1.4.1.3704.1"
_PRODUCT_NAME, _HWID, _CSP = f"{_VEK}.2", f"{_VEK}.4", f"{_VEK}.5"
_TCB_PARTS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}
_FMC = "3.9"
_TURIN_HWID_SIZE, _HWID_SIZE = 8, 64


@dataclass(frozen=True, kw_only=True)
class VerifiedReport:
    """A report that AMD's (or a test's) platform made. Whether it is good enough is for a policy to say.

    Attributes:
        report: The report.
        product: The processor's family.
        reported_tcb: What the key certifies.
        tcbs: All of the report's TCBs by their names.
        cloud: Whom the VLEK was given to; None for a VCEK.
        revocation_checked: Whether a revocation list in date was at hand and has not the chain.
        valid_until: When the first certificate or list expires.
        identity: SHA-256 of what is signed: the only thing that can tell reports apart.
        test_root: SHA-256 of the root that was trusted in place of AMD's, or None.
    """

    report: SnpReport
    product: Product
    reported_tcb: SnpTcb
    tcbs: Mapping[str, SnpTcb]
    cloud: str | None
    revocation_checked: bool
    valid_until: datetime
    identity: bytes
    test_root: bytes | None
    proof: InitVar[object] = field(kw_only=True)

    def __post_init__(self, proof: object) -> None:
        if proof is not PROOF:
            raise BugError("VerifiedReport was made without verification")


def verify_report(
    report: SnpReport,
    vek: x509.Certificate,
    collateral: AmdCollateral,
    *,
    at: int,
    test_root: x509.Certificate | None = None,
) -> VerifiedReport:
    """Verify a report.

    Args:
        report: The report.
        vek: The certificate of the key that signed it, wherever it comes from.
        collateral: The certificates above it, and the revocation list.
        at: The time, in seconds since 1970, by our own clock.
        test_root: A root that is trusted in place of AMD's, for tests.

    Raises:
        UntrustedDataError: It is not genuine, its guest can be debugged, or a certificate is not AMD's, for another
            chip, product or TCB, not valid at that time, or revoked.
    """
    if report.debug:
        raise UntrustedDataError(
            "check debug: got a debug guest, expected a production one: its host can read every secret",
            remedy="start it without debug, or develop on the simulated platform",
        )
    with refused_if_malformed("check chain"):
        product = _product(report, vek)
        _check_root(collateral.ark, product, test_root)
        now = _time(at)
        chain = (vek, collateral.intermediate, collateral.ark)
        _check_chain(chain, now)
        revocation_checked = _check_revocation(chain, collateral.crl, now)
        _check_kind(report, vek, collateral.intermediate)
        _check_signature(report, vek)
        reported = SnpTcb.parse(report.reported_tcb, product)
        certified = _certified_tcb(vek, product)
        if certified != reported:
            raise UntrustedDataError(
                f"check reported TCB: got {reported}, expected what the key certifies: {certified}"
            )
        if report.signing_key is SigningKey.VCEK:
            _check_chip(report, vek, product)
    ends = [certificate.not_valid_after_utc for certificate in chain]
    if collateral.crl is not None:
        ends.append(next_update(collateral.crl))
    return VerifiedReport(
        report=report,
        product=product,
        reported_tcb=reported,
        tcbs={
            "current": SnpTcb.parse(report.current_tcb, product),
            "reported": reported,
            "committed": SnpTcb.parse(report.committed_tcb, product),
            "launch": SnpTcb.parse(report.launch_tcb, product),
        },
        cloud=_text(_extension(vek, _CSP)) if report.signing_key is SigningKey.VLEK else None,
        revocation_checked=revocation_checked,
        valid_until=min(ends),
        identity=hashlib.sha256(report.signed).digest(),
        test_root=None if test_root is None else test_root.fingerprint(SHA256()),
        proof=PROOF,
    )


def hardware_id(report: SnpReport, product: Product) -> bytes:
    """Return what AMD's key distribution service calls the chip by: 64 bytes, for Turin 8."""
    return report.chip_id[:_TURIN_HWID_SIZE] if product is Product.TURIN else report.chip_id


def certified_product(vek: x509.Certificate) -> Product:
    """Return the family of processors that a VCEK or VLEK is for.

    Raises:
        UntrustedDataError: The certificate does not say, or it is none that is known.
    """
    name = _text(_extension(vek, _PRODUCT_NAME))
    product = next((product for product in Product if name.split("-")[0] == product), None)
    if product is None:
        raise UntrustedDataError(f"check product: got a key for {name[:40]!r}, expected Milan, Genoa or Turin")
    return product


def certified_chip(vek: x509.Certificate) -> tuple[Product, bytes, SnpTcb]:
    """Return the product, the hardware id and the TCB that a VCEK is for.

    Raises:
        UntrustedDataError: The certificate does not say.
    """
    product = certified_product(vek)
    return product, _certified_hardware_id(vek, product), _certified_tcb(vek, product)


def _product(report: SnpReport, vek: x509.Certificate) -> Product:
    certified = certified_product(vek)
    if report.product not in (None, certified):
        raise UntrustedDataError(f"check product: got a report of {report.product}, but a key for {certified}")
    return certified


def _check_root(ark: x509.Certificate, product: Product, test_root: x509.Certificate | None) -> None:
    """A root that comes with the rest never becomes the anchor: it must be the pinned one."""
    got = ark.fingerprint(SHA256())
    expected = ARK_SHA256[product] if test_root is None else test_root.fingerprint(SHA256())
    if not hmac.compare_digest(got, expected):
        whose = f"AMD's for {product}" if test_root is None else "the trusted test root"
        raise UntrustedDataError(f"check root: got {got.hex()}, expected {whose} {expected.hex()}")


def _check_chain(chain: tuple[x509.Certificate, x509.Certificate, x509.Certificate], now: datetime) -> None:
    vek, intermediate, ark = chain
    for certificate, by in ((ark, ark), (intermediate, ark), (vek, intermediate)):
        name = certificate.subject.rfc4514_string()
        try:
            parameters = certificate.signature_algorithm_parameters
            certificate.verify_directly_issued_by(by)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise UntrustedDataError(f"check chain: {name} is not signed by {by.subject.rfc4514_string()}") from None
        if (
            not isinstance(parameters, padding.PSS)
            or not isinstance(certificate.signature_hash_algorithm, SHA384)
            or not isinstance(by.public_key(), rsa.RSAPublicKey)
        ):
            raise UntrustedDataError(f"check chain: {name} is not signed with RSASSA-PSS and SHA-384")
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise UntrustedDataError(
                f"check chain: {name} is valid from {certificate.not_valid_before_utc:%Y-%m-%d} to "
                f"{certificate.not_valid_after_utc:%Y-%m-%d}, and not at {now:%Y-%m-%d}"
            )


def _check_revocation(
    chain: tuple[x509.Certificate, ...], crl: x509.CertificateRevocationList | None, now: datetime
) -> bool:
    """Check the chain against the root's list; without one at hand, it remains for the policy to refuse."""
    if crl is None:
        return False
    ark = chain[-1]
    key = ark.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    try:
        signed = crl.issuer == ark.subject and crl.is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        signed = False
    if not signed:
        raise UntrustedDataError("check revocation list: it is not signed by the root of this chain")
    if not crl.last_update_utc <= now <= next_update(crl):
        raise UntrustedDataError(
            f"check revocation list: it is valid from {crl.last_update_utc:%Y-%m-%d %H:%M:%SZ} to "
            f"{next_update(crl):%Y-%m-%d %H:%M:%SZ}, and not at {now:%Y-%m-%d %H:%M:%SZ}",
            remedy="fetch a newer one, or import it with `sconify cas collateral import`",
        )
    for certificate in chain:
        if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
            raise UntrustedDataError(f"check revocation list: {certificate.subject.rfc4514_string()} is revoked")
    return True


def _check_kind(report: SnpReport, vek: x509.Certificate, intermediate: x509.Certificate) -> None:
    """Make sure that the certificate is for the kind of key that the report names: by name, content and issuer."""
    kind = report.signing_key
    shared = _extension_or_none(vek, _CSP) is not None
    names = [name.value for name in vek.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    issuers = [name.value for name in intermediate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    is_vlek = kind is SigningKey.VLEK
    fits = (
        names == [f"SEV-{kind.upper()}"]
        and shared == is_vlek
        and (_extension_or_none(vek, _HWID) is None) == is_vlek
        and len(issuers) == 1
        and str(issuers[0]).startswith("SEV-VLEK-") == is_vlek
    )
    if not fits:
        raise UntrustedDataError(
            f"check signing key: the report names a {kind.upper()}, its certificate is for another"
        )


def _check_signature(report: SnpReport, vek: x509.Certificate) -> None:
    key = vek.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise UntrustedDataError("check signing key: the certificate has no key of P-384")
    try:
        key.verify(encode_dss_signature(*report.signature), report.signed, ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise UntrustedDataError("check report signature: it is not over this report") from None


def _certified_tcb(vek: x509.Certificate, product: Product) -> SnpTcb:
    def part(number: str) -> int:
        return der.parse(_extension(vek, f"{_VEK}.{number}")).unsigned()

    fmc = part(_FMC) if product is Product.TURIN else None
    return SnpTcb(fmc=fmc, **{name: part(number) for name, number in _TCB_PARTS.items()})


def _certified_hardware_id(vek: x509.Certificate, product: Product) -> bytes:
    size = _TURIN_HWID_SIZE if product is Product.TURIN else _HWID_SIZE
    certified = _extension(vek, _HWID)
    if len(certified) != size:  # older certificates have the bare bytes, newer ones an OCTET STRING
        certified = der.parse(certified).expect(der.OCTET_STRING).content
    if len(certified) != size or not any(certified):
        raise UntrustedDataError(f"check chip: the key is for no chip: its hardware id is {certified.hex()[:16]}…")
    return certified


def _check_chip(report: SnpReport, vek: x509.Certificate, product: Product) -> None:
    certified = _certified_hardware_id(vek, product)
    if not hmac.compare_digest(certified.ljust(_HWID_SIZE, b"\0"), report.chip_id):
        raise UntrustedDataError(
            f"check chip: got {report.chip_id.hex()[:16]}…, expected what the key is for: {certified.hex()[:16]}…"
        )


def _extension_or_none(certificate: x509.Certificate, dotted: str) -> bytes | None:
    with refused_if_malformed("check chain: the extensions of a certificate"):
        try:
            extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(dotted)).value
        except x509.ExtensionNotFound:
            return None
    assert isinstance(extension, x509.UnrecognizedExtension)
    return extension.value


def _extension(certificate: x509.Certificate, dotted: str) -> bytes:
    value = _extension_or_none(certificate, dotted)
    if value is None:
        raise UntrustedDataError(f"check signing key: its certificate has no extension {dotted}")
    return value


def _text(encoded: bytes) -> str:
    element = der.parse(encoded)
    if element.tag not in (der.IA5_STRING, der.UTF8_STRING) or not element.content.isascii():
        raise UntrustedDataError("check signing key: an extension of its certificate is no text")
    return element.content.decode()


def _time(at: int) -> datetime:
    try:
        return datetime.fromtimestamp(at, UTC)
    except (ValueError, OverflowError, OSError):
        raise UntrustedDataError(f"check chain: {at} is no time") from None
