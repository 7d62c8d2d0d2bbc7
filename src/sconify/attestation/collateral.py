"""Parse what evidence is verified against: Intel's collateral, AMD's certificates and revocation lists. No I/O."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Annotated, Self

import dcap_qvl
from cryptography import x509
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sconify.attestation.malformed import refused_if_malformed
from sconify.attestation.tcb import QeIdentity, TcbInfo
from sconify.errors import UntrustedDataError

# AMD gives its VCEKs and VLEKs the serial number 0, which RFC 5280 does not allow; they are to be read all the same.
warnings.filterwarnings("ignore", message="Parsed a serial number which wasn't positive")

MAX_COLLATERAL = 1 << 20
"""Bytes of one collateral document: Intel's have about 20 KiB."""


def _hex(value: object) -> bytes:
    if not isinstance(value, str):
        raise ValueError("expected hex digits")
    return bytes.fromhex(value)


_Hex = Annotated[bytes, BeforeValidator(_hex)]
_Chain = Annotated[str, Field(max_length=32 * 1024)]


class _IntelDocument(BaseModel):
    """The form of ``dcap_qvl.QuoteCollateralV3`` as JSON: signed texts are kept to the letter."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    pck_crl_issuer_chain: _Chain
    root_ca_crl: _Hex
    pck_crl: _Hex
    tcb_info_issuer_chain: _Chain
    tcb_info: str
    tcb_info_signature: _Hex
    qe_identity_issuer_chain: _Chain
    qe_identity: str
    qe_identity_signature: _Hex


@dataclass(frozen=True, kw_only=True)
class IntelCollateral:
    """Well-formed collateral of an Intel platform; its signatures are verified with each quote.

    Attributes:
        tcb_info: The TCB information.
        qe_identity: The identity of the quoting enclave.
        pck_crl: The revocation list of PCK certificates.
        root_crl: The revocation list of the root.
    """

    tcb_info: TcbInfo
    qe_identity: QeIdentity
    pck_crl: x509.CertificateRevocationList = field(repr=False)
    root_crl: x509.CertificateRevocationList = field(repr=False)
    document: _IntelDocument = field(repr=False)

    @classmethod
    def parse(cls, text: str | bytes) -> Self:
        """Parse collateral in the JSON form of ``dcap_qvl.QuoteCollateralV3``.

        Raises:
            UntrustedDataError: It is malformed or too large.
        """
        if len(text) > MAX_COLLATERAL:
            raise UntrustedDataError(f"collateral: got {len(text)} bytes, expected at most {MAX_COLLATERAL}")
        try:
            document = _IntelDocument.model_validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            place = ".".join(str(element)[:60] for element in first["loc"])
            raise UntrustedDataError(f"collateral: {place or 'it'}: {first['msg']}") from None
        return cls(
            tcb_info=TcbInfo.parse(document.tcb_info),
            qe_identity=QeIdentity.parse(document.qe_identity),
            pck_crl=parse_crl(document.pck_crl, "PCK revocation list"),
            root_crl=parse_crl(document.root_ca_crl, "root revocation list"),
            document=document,
        )

    @property
    def valid_from(self) -> datetime:
        """When all parts have been issued."""
        return max(
            self.tcb_info.issued,
            self.qe_identity.issued,
            self.pck_crl.last_update_utc,
            self.root_crl.last_update_utc,
        )

    @property
    def valid_until(self) -> datetime:
        """When the first part must be replaced by a newer one."""
        return min(
            self.tcb_info.next_update,
            self.qe_identity.next_update,
            next_update(self.pck_crl),
            next_update(self.root_crl),
        )

    @property
    def evaluation_data_number(self) -> int:
        """How new Intel's evaluation is: the lower one of TCB information and QE identity."""
        return min(self.tcb_info.evaluation_data_number, self.qe_identity.evaluation_data_number)

    def to_json(self) -> str:
        """Return the text that ``parse`` reads."""
        texts = {
            name: value.hex() if isinstance(value, bytes) else value for name, value in self.document.__dict__.items()
        }
        return json.dumps(texts)

    @cached_property
    def for_library(self) -> dcap_qvl.QuoteCollateralV3:
        """The collateral as ``dcap-qvl`` takes it."""
        return dcap_qvl.QuoteCollateralV3(**self.document.__dict__)


@dataclass(frozen=True, kw_only=True)
class AmdCollateral:
    """Well-formed certificates of AMD for one product; they are verified with each report.

    Attributes:
        ark: The AMD root key's certificate.
        intermediate: That of what signs VCEKs (ASK) or VLEKs (ASVK).
        crl: The root's revocation list; None: there is none at hand.
    """

    ark: x509.Certificate = field(repr=False)
    intermediate: x509.Certificate = field(repr=False)
    crl: x509.CertificateRevocationList | None = field(repr=False)

    @classmethod
    def parse(cls, chain: bytes, *, crl: bytes | None) -> Self:
        """Parse the chain as the KDS gives it: the intermediate, then the root, in PEM.

        Args:
            chain: The PEM text.
            crl: The revocation list in DER.

        Raises:
            UntrustedDataError: It is malformed.
        """
        if len(chain) > MAX_COLLATERAL:
            raise UntrustedDataError(f"AMD chain: got {len(chain)} bytes, expected at most {MAX_COLLATERAL}")
        with refused_if_malformed("AMD chain"):
            certificates = x509.load_pem_x509_certificates(chain)
        if len(certificates) != 2:
            raise UntrustedDataError(
                f"AMD chain: got {len(certificates)} certificates, expected 2: ASK or ASVK, and ARK"
            )
        return cls(
            intermediate=certificates[0],
            ark=certificates[1],
            crl=None if crl is None else parse_crl(crl, "AMD revocation list"),
        )


def parse_crl(data: bytes, what: str) -> x509.CertificateRevocationList:
    """Parse a revocation list in DER that says when the next one comes.

    Raises:
        UntrustedDataError: It is malformed, or good for ever.
    """
    with refused_if_malformed(what):
        crl = x509.load_der_x509_crl(data)
        ends = crl.next_update_utc
    if ends is None:
        raise UntrustedDataError(f"{what}: it does not say when the next one comes")
    return crl


def parse_certificate(data: bytes, what: str) -> x509.Certificate:
    """Parse a certificate in DER.

    Raises:
        UntrustedDataError: It is malformed.
    """
    with refused_if_malformed(what):
        return x509.load_der_x509_certificate(data)


def crl_number(crl: x509.CertificateRevocationList) -> int:
    """Return the number of a revocation list; 0 if it has none.

    Raises:
        UntrustedDataError: Its extensions are malformed.
    """
    with refused_if_malformed("revocation list"):
        try:
            return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        except x509.ExtensionNotFound:
            return 0


def next_update(crl: x509.CertificateRevocationList) -> datetime:
    """Return when the next list comes."""
    ends = crl.next_update_utc
    assert ends is not None  # parse_crl has seen to it
    return ends
