"""Files of evidence: whatever form a quote, a report, evidence of a LAS or a certificate comes in."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path

from sconify.attestation import sgx, vm
from sconify.attestation.quote import Quote
from sconify.attestation.ratls import RaTlsCertificate
from sconify.attestation.sgx import SgxEvidence
from sconify.attestation.snp_report import REPORT_SIZE, SnpReport
from sconify.attestation.vm import VmEvidence
from sconify.errors import UntrustedDataError, UserError

_MAX_FILE = 1 << 20


@dataclass(frozen=True)
class EvidenceFile:
    """Parsed evidence.

    Attributes:
        form: ``quote``, ``report``, ``certificate`` or ``evidence``: in which form it came.
        platform: What the hardware says.
        certificate: The certificate of a report's key, in DER; empty: none came with it.
        program: The LAS's word on a program in a VM, if it is evidence of one.
    """

    form: str
    platform: Quote | SnpReport
    certificate: bytes = b""
    program: VmEvidence | None = None


def read_evidence(file: Path) -> EvidenceFile:
    """Read a raw quote or report (also in hex or base64), evidence in JSON, or an RA-TLS certificate.

    Raises:
        UserError: The file can't be read, or is none of these.
        UntrustedDataError: It is malformed.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}", remedy="name a file with evidence") from None
    if len(data) > _MAX_FILE:
        raise UserError(f"{file} is larger than {_MAX_FILE} bytes", remedy="name a file with evidence")
    try:
        return _parse(data, file)
    except UntrustedDataError as error:
        raise UntrustedDataError(f"{file}: {error.what}", remedy=error.remedy) from None


def _parse(data: bytes, file: Path) -> EvidenceFile:
    if data.lstrip()[:1] == b"{":
        return _parse_json(data, file)
    if len(data) == REPORT_SIZE and data[:1] in (b"\2", b"\3", b"\5"):
        return EvidenceFile("report", SnpReport.parse(data))
    if data[:2] in (b"\3\0", b"\4\0", b"\5\0"):
        return EvidenceFile("quote", Quote.parse(data))
    if b"-----BEGIN CERTIFICATE-----" in data or data[:2] == b"\x30\x82":
        return EvidenceFile("certificate", RaTlsCertificate.parse(data).quote)
    decoded = _from_text(data)
    if decoded is None:
        raise UserError(
            f"{file} is no evidence",
            remedy="name a quote, an SNP report, evidence in JSON, or a certificate with a quote",
        )
    return _parse(decoded, file)


def _from_text(data: bytes) -> bytes | None:
    text = re.sub(rb"\s", b"", data)
    if not text:
        return None
    if re.fullmatch(rb"(?:[0-9a-fA-F]{2})+", text):
        return bytes.fromhex(text.decode())
    try:
        decoded = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return decoded if decoded[:1] in (b"\2", b"\3", b"\4", b"\5", b"\x30") else None


def _parse_json(data: bytes, file: Path) -> EvidenceFile:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise UserError(f"{file} is no JSON", remedy="name a file with evidence") from None
    document = document.get("evidence", document)  # as a LAS answers
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind == sgx.KIND:
        return EvidenceFile("evidence", SgxEvidence.parse(document).quote)
    if kind in (vm.TDX, vm.SNP):
        parse = VmEvidence.parse_tdx if kind == vm.TDX else VmEvidence.parse_snp
        program = parse(document)
        return EvidenceFile("evidence", program.quote, program.certificate, program)
    if kind == "simulated":
        raise UserError(f"{file} is simulated evidence, which proves nothing", remedy="name evidence of hardware")
    raise UserError(f"{file} is no evidence of a known kind", remedy="name evidence of kind sgx, tdx or snp")
