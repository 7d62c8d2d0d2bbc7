"""Files of collateral: offline bundles, and what the manufacturers' services give (docs/attestation.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from cryptography import x509

from sconify.attestation.collateral import MAX_COLLATERAL, parse_certificate
from sconify.attestation.snp_report import Product
from sconify.cas.collateral import Collateral
from sconify.errors import UntrustedDataError, UserError

BUNDLE_FORMAT = "sconify-collateral/1"
MAX_FILE = 64 * MAX_COLLATERAL
"""Bytes of a bundle: far more than all platforms of a data centre have."""

_REMEDY = "name a bundle, Intel collateral in JSON, AMD certificates in PEM, or a revocation list or VCEK in DER"


def import_file(collateral: Collateral, data: bytes, *, name: str) -> list[str]:
    """Keep what a file has; each document is verified, and none that is older than what is kept is taken.

    Args:
        collateral: Where it is kept.
        data: The content of the file.
        name: Its name, for messages.

    Returns:
        The names of the documents.

    Raises:
        UserError: It is no file of collateral.
        UntrustedDataError: A document is malformed, not the manufacturer's, or older than what is kept.
        ServiceError: What a document is verified by is not there.
    """
    if len(data) > MAX_FILE:
        raise UserError(f"{name} is larger than {MAX_FILE} bytes", remedy=_REMEDY)
    try:
        if data.lstrip()[:1] == b"{":
            return _import_json(collateral, data, name)
        return [_import_amd(collateral, data, name)]
    except UntrustedDataError as error:
        raise UntrustedDataError(f"{name}: {error.what}", remedy=error.remedy) from None


def dump_bundle(documents: Mapping[str, bytes]) -> str:
    """Return documents as the text of a bundle."""
    members = {name: data.hex() for name, data in documents.items()}
    return json.dumps({"format": BUNDLE_FORMAT, "documents": members}, indent=1)


def _import_json(collateral: Collateral, data: bytes, name: str) -> list[str]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(f"{name} is no JSON", remedy=_REMEDY) from None
    if "format" not in document:
        return [collateral.add_intel(data)]
    members = document.get("documents")
    if document["format"] != BUNDLE_FORMAT or not isinstance(members, dict) or len(document) != 2:
        raise UserError(f"{name} is no bundle of the format {BUNDLE_FORMAT}", remedy=_REMEDY)
    try:
        contents = {str(key): bytes.fromhex(value) for key, value in members.items()}
    except (TypeError, ValueError):
        raise UserError(f"{name} is no bundle: a document is not in hex digits", remedy=_REMEDY) from None
    # What others are verified by comes first. The names in a bundle say nothing: each document tells its own.
    ordered = sorted(contents.values(), key=lambda content: (not _is_pem(content), content[:1] == b"{"))
    return [
        collateral.add_intel(content) if content[:1] == b"{" else _import_amd(collateral, content, name)
        for content in ordered
    ]


def _import_amd(collateral: Collateral, data: bytes, name: str) -> str:
    if _is_pem(data):
        try:
            certificates = x509.load_pem_x509_certificates(data)
        except (ValueError, x509.InvalidVersion):
            raise UserError(f"{name} has PEM that is no certificates", remedy=_REMEDY) from None
        return collateral.add_amd_chain(data, _product(certificates[-1].subject, name))
    try:
        crl = x509.load_der_x509_crl(data)
    except ValueError:
        crl = None
    if crl is not None:
        return collateral.add_amd_crl(data, _product(crl.issuer, name))
    try:
        parse_certificate(data, name)
    except UntrustedDataError:
        raise UserError(f"{name} is no collateral", remedy=_REMEDY) from None
    return collateral.add_amd_vcek(data)


def _is_pem(data: bytes) -> bool:
    return b"-----BEGIN CERTIFICATE-----" in data and data[:1] != b"{"


def _product(root: x509.Name, name: str) -> Product:
    """Return the product of a root key: its name is ``ARK-Milan``."""
    names = [str(one.value) for one in root.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
    product = next((product for product in Product if names == [f"ARK-{product}"]), None)
    if product is None:
        raise UserError(
            f"{name} is by {', '.join(names) or 'nobody'}, expected AMD's root for {', '.join(Product)}", remedy=_REMEDY
        )
    return product
