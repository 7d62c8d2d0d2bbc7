"""Verify collateral before it is kept: so that what nobody signed is never stored, and never counts as the newest."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from sconify.attestation.collateral import AmdCollateral, IntelCollateral
from sconify.attestation.intel import INTEL_ROOT_SHA256
from sconify.attestation.malformed import refused_if_malformed
from sconify.attestation.snp import ARK_SHA256
from sconify.attestation.snp_report import Product
from sconify.errors import UntrustedDataError


def verify_intel_collateral(collateral: IntelCollateral, *, test_roots: Sequence[x509.Certificate] = ()) -> None:
    """Verify each signature of collateral up to Intel's root, or up to a test root.

    Raises:
        UntrustedDataError: One is not by whom it must be.
    """
    document = collateral.document
    roots = {INTEL_ROOT_SHA256, *(root.fingerprint(SHA256()) for root in test_roots)}
    for text, signature, chain, what in (
        (document.tcb_info, document.tcb_info_signature, document.tcb_info_issuer_chain, "TCB information"),
        (document.qe_identity, document.qe_identity_signature, document.qe_identity_issuer_chain, "QE identity"),
    ):
        signer, root = _chain(chain, roots, what)
        if collateral.root_crl.get_revoked_certificate_by_serial_number(signer.serial_number) is not None:
            raise UntrustedDataError(f"collateral: the signer of the {what} is revoked")
        with refused_if_malformed(f"collateral: the issuer of the {what}"):
            key = signer.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or len(signature) != 64:
            raise UntrustedDataError(f"collateral: the {what} is not signed with ECDSA")
        try:
            encoded = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
            key.verify(encoded, text.encode(), ec.ECDSA(SHA256()))
        except InvalidSignature:
            raise UntrustedDataError(f"collateral: the signature of the {what} is not over its text") from None
        _check_crl(collateral.root_crl, root, "root")
    issuer, _ = _chain(document.pck_crl_issuer_chain, roots, "revocation list of PCK certificates")
    _check_crl(collateral.pck_crl, issuer, "PCK")


def verify_amd_collateral(
    collateral: AmdCollateral, product: Product, *, test_roots: Sequence[x509.Certificate] = ()
) -> None:
    """Verify the certificates of a product up to AMD's root, or up to a test root, and the revocation list.

    Raises:
        UntrustedDataError: They are not the root's.
    """
    ark = collateral.ark
    if ark.fingerprint(SHA256()) not in {ARK_SHA256[product], *(root.fingerprint(SHA256()) for root in test_roots)}:
        raise UntrustedDataError(f"collateral: its root is not AMD's for {product}")
    try:
        collateral.intermediate.verify_directly_issued_by(ark)
        signed = collateral.crl is None or (
            collateral.crl.issuer == ark.subject and collateral.crl.is_signature_valid(ark.public_key())  # type: ignore[arg-type]
        )
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        signed = False
    if not signed:
        raise UntrustedDataError(f"collateral: it is not signed by AMD's root for {product}")


def verify_vek(vek: x509.Certificate, collateral: AmdCollateral) -> None:
    """Verify that the certificate of a report's key is the intermediate's.

    Raises:
        UntrustedDataError: It is not.
    """
    try:
        vek.verify_directly_issued_by(collateral.intermediate)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        raise UntrustedDataError("collateral: the certificate of the chip's key is not AMD's") from None


def _chain(text: str, roots: set[bytes], what: str) -> tuple[x509.Certificate, x509.Certificate]:
    with refused_if_malformed(f"collateral: the issuers of the {what}"):
        certificates = x509.load_pem_x509_certificates(text.encode())
    if len(certificates) != 2 or certificates[1].fingerprint(SHA256()) not in roots:
        raise UntrustedDataError(f"collateral: the issuers of the {what} don't end at a trusted root")
    signer, root = certificates
    try:
        root.verify_directly_issued_by(root)
        signer.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise UntrustedDataError(f"collateral: the issuer of the {what} is not the root's") from None
    return signer, root


def _check_crl(crl: x509.CertificateRevocationList, issuer: x509.Certificate, what: str) -> None:
    key = issuer.public_key()
    if (
        not isinstance(key, ec.EllipticCurvePublicKey)
        or crl.issuer != issuer.subject
        or not crl.is_signature_valid(key)
    ):
        raise UntrustedDataError(f"collateral: the {what} revocation list is not signed by its issuer")
