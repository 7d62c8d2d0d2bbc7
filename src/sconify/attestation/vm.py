"""Evidence of a program in a confidential VM (TDX, SEV-SNP): docs/protocol.md, section 7.

Hardware measures the VM; the LAS, which is a part of the measured VM, measures the program. The hardware's quote binds
the LAS's key together with what the program asked to bind, and that key signs what was measured.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence, las_report_data
from sconify.attestation.intel import VerifiedQuote
from sconify.attestation.members import Members, base64url
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import MAX_QUOTE, Quote, SgxReport, TdReport
from sconify.attestation.snp import VerifiedReport
from sconify.attestation.snp_report import REPORT_SIZE, SnpReport
from sconify.errors import UntrustedDataError
from sconify.policy.canonical import canonical_json

TDX, SNP = "tdx", "snp"
MAX_CERTIFICATE = 8 * 1024
"""Bytes of a VCEK's or VLEK's certificate in DER; they have about 1400."""

_VERSION = 1
_DOMAIN = b"sconify local report v1\0"
_MEMBERS = {"quote", "certificate", "las_key", "measurement", "report_data", "signature"}


@dataclass(frozen=True, kw_only=True)
class VmEvidence:
    """Well-formed evidence that nobody has verified yet.

    Attributes:
        kind: ``tdx`` or ``snp``.
        quote: What the hardware says.
        certificate: The certificate of the key that signed an SNP report, in DER, as the host gave it; empty: none.
        las_key: The LAS's Ed25519 key, 32 bytes.
        measurement: What the LAS measured, 32 bytes.
        report_data: What the program asked to bind, 64 bytes.
        signature: By the LAS's key, 64 bytes.
    """

    kind: str
    quote: Quote | SnpReport
    certificate: bytes = field(repr=False)
    las_key: bytes
    measurement: bytes
    report_data: bytes
    signature: bytes

    @classmethod
    def parse_tdx(cls, data: object) -> VmEvidence:
        """Parse the JSON object of the protocol for TDX, strictly.

        Raises:
            UntrustedDataError: It is malformed, or its quote is none of a trust domain.
        """
        return cls._parse(data, TDX)

    @classmethod
    def parse_snp(cls, data: object) -> VmEvidence:
        """Parse the JSON object of the protocol for SEV-SNP, strictly.

        Raises:
            UntrustedDataError: It is malformed.
        """
        return cls._parse(data, SNP)

    @classmethod
    def _parse(cls, data: object, kind: str) -> VmEvidence:
        members = Members(data, kind=kind, version=_VERSION, names=_MEMBERS)
        raw = members.base64url("quote", largest=MAX_QUOTE if kind == TDX else REPORT_SIZE)
        quote: Quote | SnpReport = Quote.parse(raw) if kind == TDX else SnpReport.parse(raw)
        if isinstance(quote, Quote) and quote.tee != TDX:
            raise UntrustedDataError(f"tdx evidence: got a quote of {quote.tee}")
        certificate = members.base64url("certificate", largest=MAX_CERTIFICATE)
        if certificate and kind == TDX:
            raise UntrustedDataError("tdx evidence: got a certificate, expected that the quote has it")
        return cls(
            kind=kind,
            quote=quote,
            certificate=certificate,
            las_key=members.base64url("las_key", size=32),
            measurement=members.hex("measurement", 32),
            report_data=members.hex("report_data", 64),
            signature=members.base64url("signature", size=64),
        )

    def verify(self, *, expected_report_data: bytes, authorities: Authorities, at: int) -> VerifiedEvidence:
        """Verify what the hardware says, that it vouches for the LAS, and what the LAS says.

        Args:
            expected_report_data: What the program must have bound, 64 bytes.
            authorities: What it is verified against.
            at: The time, in seconds since 1970.

        Raises:
            UntrustedDataError: It is not genuine, or was made for something else.
            ServiceError: There is no collateral for its platform.
        """
        platform: VerifiedQuote | VerifiedReport
        if isinstance(self.quote, Quote):
            platform = authorities.verify_quote(self.quote, at=at)
            report: TdReport | SgxReport | SnpReport = platform.body
        else:
            platform = authorities.verify_report(self.quote, certificate=self.certificate, at=at)
            report = platform.report
        expected = las_report_data(kind=self.kind, las_key=self.las_key, report_data=self.report_data)
        if not hmac.compare_digest(report.report_data, expected):
            raise UntrustedDataError("check LAS key: the hardware does not vouch for this LAS and this request")
        message = _message(self.kind, self.las_key, self.measurement, self.report_data)
        try:
            Ed25519PublicKey.from_public_bytes(self.las_key).verify(self.signature, message)
        except (InvalidSignature, ValueError):
            raise UntrustedDataError("check LAS signature: it is not over this measurement") from None
        if not hmac.compare_digest(self.report_data, expected_report_data):
            raise UntrustedDataError(
                "check report data: the evidence was made for another nonce, key or configuration id"
            )
        return VerifiedEvidence(
            kind=self.kind, measurement=self.measurement, debug=report.debug, platform=platform, proof=PROOF
        )


def issue(
    *,
    kind: str,
    quote: bytes,
    certificate: bytes,
    las_key: Ed25519PrivateKey,
    measurement: bytes,
    report_data: bytes,
) -> dict[str, str | int]:
    """Issue evidence as a LAS.

    Args:
        kind: ``tdx`` or ``snp``.
        quote: What the hardware said to ``las_report_data`` of the same key and report data.
        certificate: The certificate of the key that signed an SNP report, in DER, or nothing.
        las_key: The LAS's key.
        measurement: What the LAS measured, 32 bytes.
        report_data: What the program asked to bind, 64 bytes.

    Returns:
        The JSON object of the protocol.
    """
    public = las_key.public_key().public_bytes_raw()
    return {
        "kind": kind,
        "version": _VERSION,
        "quote": base64url(quote),
        "certificate": base64url(certificate),
        "las_key": base64url(public),
        "measurement": measurement.hex(),
        "report_data": report_data.hex(),
        "signature": base64url(las_key.sign(_message(kind, public, measurement, report_data))),
    }


def _message(kind: str, las_key: bytes, measurement: bytes, report_data: bytes) -> bytes:
    members = {
        "kind": kind,
        "version": _VERSION,
        "las_key": base64url(las_key),
        "measurement": measurement.hex(),
        "report_data": report_data.hex(),
    }
    return _DOMAIN + canonical_json(members)
