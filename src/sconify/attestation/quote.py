"""Parse Intel quotes: SGX (version 3) and TDX (versions 4 and 5). No I/O, nothing verified.

The layout is that of Intel's ``sgx_quote_3.h``, ``sgx_quote_4.h`` and ``sgx_quote_5.h`` (SGX DCAP): little-endian
integers; ECDSA keys and signatures are two big-endian numbers of 32 bytes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from cryptography import x509

from sconify.attestation.malformed import refused_if_malformed
from sconify.errors import UntrustedDataError

MAX_QUOTE = 32 * 1024
"""Bytes of the largest quote: what Linux gives through configfs-tsm."""

ECDSA_P256 = 2
INTEL_QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""The only vendor of quoting enclaves: anybody else's would report to anybody else's key."""

_TDX = 0x81
_HEADER_SIZE = 48
_SGX_SIZE, _TD10_SIZE, _TD15_SIZE = 384, 584, 648
_BODY_SIZES = {2: _TD10_SIZE, 3: _TD15_SIZE}
_QE_REPORT_CERTIFICATION, _PCK_CHAIN = 6, 5
_MAX_CHAIN = 4
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")

Tee: TypeAlias = Literal["sgx", "tdx"]


@dataclass(frozen=True, kw_only=True)
class SgxReport:
    """The report of an enclave, 384 bytes.

    Attributes:
        cpu_svn: 16 bytes.
        misc_select: Its bits.
        flags: The first 8 bytes of ATTRIBUTES; bit 1 is DEBUG.
        xfrm: The other 8 bytes of ATTRIBUTES.
        mrenclave: What the enclave consists of, 32 bytes.
        mrsigner: Who signed it: SHA-256 of the modulus, 32 bytes.
        config_id: 64 bytes.
        isv_prod_id: The signer's number of the product.
        isv_svn: The signer's security version.
        config_svn: The security version of the configuration.
        report_data: What the enclave vouches for, 64 bytes.
    """

    cpu_svn: bytes
    misc_select: int
    flags: int
    xfrm: int
    mrenclave: bytes
    mrsigner: bytes
    config_id: bytes
    isv_prod_id: int
    isv_svn: int
    config_svn: int
    report_data: bytes

    @property
    def debug(self) -> bool:
        """Whether the host can read and change the enclave's memory."""
        return bool(self.flags & 0b10)

    @classmethod
    def parse(cls, data: bytes) -> SgxReport:
        """Parse 384 bytes."""
        assert len(data) == _SGX_SIZE
        return cls(
            cpu_svn=data[:16],
            misc_select=_number(data, 16, 4),
            flags=_number(data, 48, 8),
            xfrm=_number(data, 56, 8),
            mrenclave=data[64:96],
            mrsigner=data[128:160],
            config_id=data[192:256],
            isv_prod_id=_number(data, 256, 2),
            isv_svn=_number(data, 258, 2),
            config_svn=_number(data, 260, 2),
            report_data=data[320:384],
        )


@dataclass(frozen=True, kw_only=True)
class TdReport:
    """The report of a trust domain (TDX 1.0: 584 bytes; 1.5: 648 bytes).

    Attributes:
        tee_tcb_svn: 16 bytes; [0] and [1] are security version and version of the TDX module.
        mrseam: The TDX module, 48 bytes.
        mrsigner_seam: Its signer, 48 bytes; zero for Intel.
        seam_attributes: Its attributes.
        td_attributes: The attributes of the trust domain; bit 0 is DEBUG, bit 28 SEPT_VE_DISABLE.
        xfam: The CPU features that it may use.
        mrtd: What it was started with, 48 bytes.
        mrconfigid: What its owner configured, 48 bytes.
        mrowner: Its owner, 48 bytes.
        mrownerconfig: What the owner configured, 48 bytes.
        rtmrs: The four registers that it extended, 48 bytes each.
        report_data: What it vouches for, 64 bytes.
        tee_tcb_svn2: What the loaded TDX module has now, 16 bytes; None before 1.5.
        mrservicetd: The service domains bound to it, 48 bytes; None before 1.5.
    """

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsigner_seam: bytes
    seam_attributes: int
    td_attributes: int
    xfam: int
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mrservicetd: bytes | None = None

    @property
    def debug(self) -> bool:
        """Whether the host can read and change its memory; the bits beside DEBUG are reserved for the like."""
        return bool(self.td_attributes & 0xFF)

    @classmethod
    def parse(cls, data: bytes) -> TdReport:
        """Parse 584 or 648 bytes."""
        assert len(data) in (_TD10_SIZE, _TD15_SIZE)
        newer = len(data) == _TD15_SIZE
        return cls(
            tee_tcb_svn=data[:16],
            mrseam=data[16:64],
            mrsigner_seam=data[64:112],
            seam_attributes=_number(data, 112, 8),
            td_attributes=_number(data, 120, 8),
            xfam=_number(data, 128, 8),
            mrtd=data[136:184],
            mrconfigid=data[184:232],
            mrowner=data[232:280],
            mrownerconfig=data[280:328],
            rtmrs=(data[328:376], data[376:424], data[424:472], data[472:520]),
            report_data=data[520:584],
            tee_tcb_svn2=data[584:600] if newer else None,
            mrservicetd=data[600:648] if newer else None,
        )


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A well-formed quote that nobody has verified yet.

    Attributes:
        version: 3, 4 or 5.
        key_type: The type of the attestation key.
        tee: What the report is of.
        vendor: The vendor of the quoting enclave, 16 bytes.
        qe_id: The id of the quoting enclave on its platform, 16 bytes: the first ones of the header's user data.
        body: The report.
        signed: The bytes that the attestation key signed: all that can identify the quote.
        signature: By the attestation key, r ‖ s.
        attestation_key: Its P-256 key, x ‖ y.
        qe_report: The report of the quoting enclave, 384 bytes.
        qe_signature: By the PCK key, r ‖ s.
        qe_auth_data: What the quoting enclave's report data covers besides the attestation key.
        chain: The PCK certificate, its issuer, the root.
        encoding: The quote without what stands behind it.
    """

    version: int
    key_type: int
    tee: Tee
    vendor: bytes
    qe_id: bytes
    body: SgxReport | TdReport
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    attestation_key: bytes = field(repr=False)
    qe_report: bytes = field(repr=False)
    qe_signature: bytes = field(repr=False)
    qe_auth_data: bytes = field(repr=False)
    chain: tuple[x509.Certificate, ...] = field(repr=False)
    encoding: bytes = field(repr=False)

    @classmethod
    def parse(cls, data: bytes) -> Quote:
        """Parse a quote.

        Platforms pad quotes with zeros; anything else behind a quote is refused, and nothing behind it is kept.

        Raises:
            UntrustedDataError: It is malformed, of an unknown version or type, or too large.
        """
        if len(data) > MAX_QUOTE:
            raise UntrustedDataError(f"quote: got {len(data)} bytes, expected at most {MAX_QUOTE}")
        reader = _Reader(data)
        version, key_type, tee_type, _, vendor, qe_id = struct.unpack(
            "<HHII16s16s4x", reader.take(_HEADER_SIZE, "header")
        )
        if version not in (3, 4, 5):
            raise UntrustedDataError(f"quote: got version {version}, expected 3, 4 or 5")
        # Version 3 knows SGX only. The later ones could have its reports too, but ``dcap-qvl`` takes none of those.
        expected_type = 0 if version == 3 else _TDX
        if tee_type != expected_type:
            raise UntrustedDataError(
                f"quote: got TEE type 0x{tee_type:x} in version {version}, expected 0x{expected_type:x}"
            )
        tee: Tee = "tdx" if tee_type == _TDX else "sgx"
        body = _body(reader, version, tee)
        signed = data[: reader.position]
        (size,) = struct.unpack("<I", reader.take(4, "length of the signature section"))
        section = _Reader(reader.take(size, "signature section"))
        if any(reader.rest()):
            raise UntrustedDataError("quote: bytes stand behind it that are not zero")
        signature, attestation_key = section.take(64, "signature"), section.take(64, "attestation key")
        certification = section
        if version > 3:
            kind, content = _certification_data(section)
            if kind != _QE_REPORT_CERTIFICATION:
                raise UntrustedDataError(f"quote: got certification data of type {kind}, expected 6")
            section.expect_end()
            certification = _Reader(content)
        qe_report, qe_signature = certification.take(384, "QE report"), certification.take(64, "QE report signature")
        (size,) = struct.unpack("<H", certification.take(2, "length of the authentication data"))
        auth_data = certification.take(size, "authentication data")
        kind, content = _certification_data(certification)
        if kind != _PCK_CHAIN:
            raise UntrustedDataError(
                f"quote: got certification data of type {kind}, expected 5: the PCK certificate with its chain",
                remedy="configure the quote provider so that quotes carry the PCK certificate",
            )
        certification.expect_end()
        return cls(
            version=version,
            key_type=key_type,
            tee=tee,
            vendor=vendor,
            qe_id=qe_id,
            body=body,
            signed=signed,
            signature=signature,
            attestation_key=attestation_key,
            qe_report=qe_report,
            qe_signature=qe_signature,
            qe_auth_data=auth_data,
            chain=_pem_chain(content),
            encoding=data[: reader.position],
        )


def _body(reader: _Reader, version: int, tee: Tee) -> SgxReport | TdReport:
    if version == 5:
        kind, size = struct.unpack("<HI", reader.take(6, "type of the report"))
        expected = _BODY_SIZES.get(kind)
        if size != expected:
            raise UntrustedDataError(f"quote: got a report of type {kind} with {size} bytes, which no TDX quote has")
    else:
        size = _SGX_SIZE if tee == "sgx" else _TD10_SIZE
    content = reader.take(size, "report")
    return SgxReport.parse(content) if tee == "sgx" else TdReport.parse(content)


def _certification_data(reader: _Reader) -> tuple[int, bytes]:
    kind, size = struct.unpack("<HI", reader.take(6, "type of the certification data"))
    return kind, reader.take(size, "certification data")


def _pem_chain(content: bytes) -> tuple[x509.Certificate, ...]:
    content = content.rstrip(b"\0")
    blocks = _PEM.findall(content)
    if not 1 <= len(blocks) <= _MAX_CHAIN or _PEM.sub(b"", content).strip():
        raise UntrustedDataError(f"quote: its PCK chain is not 1 to {_MAX_CHAIN} PEM certificates")
    with refused_if_malformed("quote: a certificate of its PCK chain"):
        return tuple(x509.load_pem_x509_certificate(block) for block in blocks)


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")


class _Reader:
    """Reads bytes one part after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.position = 0

    def take(self, size: int, what: str) -> bytes:
        end = self.position + size
        if end > len(self._data):
            raise UntrustedDataError(f"quote: it ends within its {what}")
        part = self._data[self.position : end]
        self.position = end
        return part

    def rest(self) -> bytes:
        return self._data[self.position :]

    def expect_end(self) -> None:
        if self.rest():
            raise UntrustedDataError("quote: bytes stand behind its certification data")
