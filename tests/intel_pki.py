"""An Intel-shaped PKI with a root of our own: quotes and collateral of platforms in whatever state a test needs.

What it makes goes through the same code as what Intel makes; only the root is another one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sconify.attestation import der
from sconify.attestation.collateral import IntelCollateral

NOW = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
"""The time at which everything here is valid unless a test says otherwise."""

_SGX = "1.2.840.113741.1.13.1"
_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
_QE_SIGNER = {"sgx": bytes.fromhex("8c" * 32), "tdx": bytes.fromhex("dc" * 32)}
_QE_SVN = 8


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32) + s.to_bytes(32)


def raw_public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]


def encoded(tag: int, content: bytes) -> bytes:
    """One element of DER."""
    size = len(content)
    length = bytes([size]) if size < 0x80 else bytes([0x81, size]) if size < 0x100 else b"\x82" + size.to_bytes(2)
    return bytes([tag]) + length + content


def _pair(dotted: str, value: bytes) -> bytes:
    return encoded(der.SEQUENCE, encoded(der.OBJECT_IDENTIFIER, der.oid(dotted)) + value)


def _integer(value: int) -> bytes:
    return encoded(der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1))


def sgx_body(
    *,
    mrenclave: bytes = b"\x11" * 32,
    mrsigner: bytes = b"\x22" * 32,
    isv_prod_id: int = 7,
    isv_svn: int = 3,
    flags: int = 0b101,
    report_data: bytes = bytes(64),
) -> bytes:
    """The report of an enclave, 384 bytes."""
    body = bytearray(384)
    body[:16] = bytes(range(16))
    body[48:56] = flags.to_bytes(8, "little")
    body[56:64] = (0xE7).to_bytes(8, "little")
    body[64:96], body[128:160] = mrenclave, mrsigner
    body[256:258], body[258:260] = isv_prod_id.to_bytes(2, "little"), isv_svn.to_bytes(2, "little")
    body[320:384] = report_data
    return bytes(body)


def td_body(
    *,
    mrtd: bytes = b"\x31" * 48,
    rtmrs: Sequence[bytes] = (b"\x40" * 48, b"\x41" * 48, b"\x42" * 48, bytes(48)),
    mrconfigid: bytes = bytes(48),
    attributes: int = 1 << 28,
    tee_tcb_svn: bytes = bytes([5, 1, 3]) + bytes(13),
    mrsigner_seam: bytes = bytes(48),
    mrservicetd: bytes | None = None,
    report_data: bytes = bytes(64),
) -> bytes:
    """The report of a trust domain: 584 bytes, with ``mrservicetd`` 648."""
    body = bytearray(584)
    body[:16] = tee_tcb_svn
    body[16:64], body[64:112] = b"\x30" * 48, mrsigner_seam
    body[120:128] = attributes.to_bytes(8, "little")
    body[128:136] = (0x602E7).to_bytes(8, "little")
    body[136:184], body[184:232] = mrtd, mrconfigid
    for number, rtmr in enumerate(rtmrs):
        body[328 + 48 * number : 376 + 48 * number] = rtmr
    body[520:584] = report_data
    return bytes(body) + (tee_tcb_svn + mrservicetd if mrservicetd is not None else b"")


@dataclass(frozen=True, kw_only=True)
class Level:
    """A TCB level of a platform: all components at least this."""

    svn: int = 5
    status: str = "UpToDate"
    advisories: tuple[str, ...] = ()
    date: str = "2026-03-01T00:00:00Z"


@dataclass(frozen=True, kw_only=True)
class State:
    """What Intel says: of a platform, its quoting enclave, its TDX module, and when."""

    levels: tuple[Level, ...] = (Level(),)
    qe_status: str = "UpToDate"
    module_status: str = "UpToDate"
    evaluation: int = 20
    issued: int = NOW - 86400
    expires: int = NOW + 29 * 86400
    pck_revoked: bool = False
    issuer_revoked: bool = False
    fmspc: bytes | None = None
    """Of another platform."""
    qe_signer: bytes | None = None
    """Of another quoting enclave."""
    wrong_crl_issuer: bool = False
    """Let the other intermediate sign the revocation list of PCK certificates."""


@dataclass
class IntelPki:
    """A root, its intermediates, and one platform."""

    fmspc: bytes = bytes.fromhex("b0c06f000000")
    components: tuple[int, ...] = (5,) * 16
    pce_svn: int = 13
    smt: bool = True
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    ca_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    other_ca_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    tcb_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    pck_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)
    attestation_key: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    @cached_property
    def root(self) -> x509.Certificate:
        return self._certificate("Intel SGX Root CA", self.root_key, "Intel SGX Root CA", self.root_key, ca=1)

    @cached_property
    def ca(self) -> x509.Certificate:
        return self._certificate("Intel SGX PCK Platform CA", self.ca_key, "Intel SGX Root CA", self.root_key, ca=0)

    @cached_property
    def other_ca(self) -> x509.Certificate:
        return self._certificate(
            "Intel SGX PCK Processor CA", self.other_ca_key, "Intel SGX Root CA", self.root_key, ca=0
        )

    @cached_property
    def tcb_signing(self) -> x509.Certificate:
        return self._certificate("Intel SGX TCB Signing", self.tcb_key, "Intel SGX Root CA", self.root_key)

    @cached_property
    def pck(self) -> x509.Certificate:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(_SGX), self._sgx_extension())
        return self._certificate(
            "Intel SGX PCK Certificate", self.pck_key, "Intel SGX PCK Platform CA", self.ca_key, extension=extension
        )

    @property
    def root_pem(self) -> bytes:
        return self.root.public_bytes(Encoding.PEM)

    def quote(
        self,
        body: bytes,
        *,
        version: int | None = None,
        vendor: bytes = _VENDOR,
        key_type: int = 2,
        qe_signer: bytes | None = None,
        padding: bytes = b"",
    ) -> bytes:
        """A quote over a report."""
        tee = "sgx" if len(body) == 384 else "tdx"
        version = version or (3 if tee == "sgx" else 4 if len(body) == 584 else 5)
        header = (
            version.to_bytes(2, "little")
            + key_type.to_bytes(2, "little")
            + (0x81 if tee == "tdx" else 0).to_bytes(4, "little")
            + bytes(4)
            + vendor
            + bytes(20)
        )
        if version == 5:
            kind = {384: 1, 584: 2, 648: 3}[len(body)]
            header += kind.to_bytes(2, "little") + len(body).to_bytes(4, "little")
        auth_data = bytes(range(32))
        public = raw_public(self.attestation_key)
        qe_report = sgx_body(
            mrsigner=qe_signer or _QE_SIGNER[tee],
            isv_prod_id=1 if tee == "sgx" else 2,
            isv_svn=_QE_SVN,
            flags=0x15,
            report_data=hashlib.sha256(public + auth_data).digest() + bytes(32),
        )
        chain = b"".join(one.public_bytes(Encoding.PEM) for one in (self.pck, self.ca, self.root))
        certification = (
            qe_report
            + raw_signature(self.pck_key, qe_report)
            + len(auth_data).to_bytes(2, "little")
            + auth_data
            + (5).to_bytes(2, "little")
            + len(chain).to_bytes(4, "little")
            + chain
        )
        if version > 3:
            certification = (6).to_bytes(2, "little") + len(certification).to_bytes(4, "little") + certification
        section = raw_signature(self.attestation_key, header + body) + public + certification
        return header + body + len(section).to_bytes(4, "little") + section + padding

    def collateral_document(self, tee: str, state: State = State()) -> dict[str, str]:
        """Collateral for this platform, as JSON members."""
        issued, expires = _moment(state.issued), _moment(state.expires)
        info = json.dumps(self._tcb_info(tee, state, issued, expires), separators=(",", ":"))
        identity = json.dumps(self._qe_identity(tee, state, issued, expires), separators=(",", ":"))
        pem = [one.public_bytes(Encoding.PEM).decode() for one in (self.ca, self.tcb_signing, self.root)]
        pck_revoked = [self.pck.serial_number] if state.pck_revoked else []
        root_revoked = [self.ca.serial_number] if state.issuer_revoked else []
        signer = (self.other_ca, self.other_ca_key) if state.wrong_crl_issuer else (self.ca, self.ca_key)
        if state.wrong_crl_issuer:
            pem[0] = self.other_ca.public_bytes(Encoding.PEM).decode()
        return {
            "pck_crl_issuer_chain": pem[0] + pem[2],
            "root_ca_crl": self._crl(self.root, self.root_key, root_revoked, state).hex(),
            "pck_crl": self._crl(*signer, pck_revoked, state).hex(),
            "tcb_info_issuer_chain": pem[1] + pem[2],
            "tcb_info": info,
            "tcb_info_signature": raw_signature(self.tcb_key, info.encode()).hex(),
            "qe_identity_issuer_chain": pem[1] + pem[2],
            "qe_identity": identity,
            "qe_identity_signature": raw_signature(self.tcb_key, identity.encode()).hex(),
        }

    def collateral(self, tee: str, state: State = State(), **changes: Any) -> IntelCollateral:
        """Collateral for this platform; ``changes`` are members of the state."""
        return IntelCollateral.parse(json.dumps(self.collateral_document(tee, replace(state, **changes))))

    def _tcb_info(self, tee: str, state: State, issued: str, expires: str) -> dict[str, Any]:
        info: dict[str, Any] = {
            "id": tee.upper(),
            "version": 3,
            "issueDate": issued,
            "nextUpdate": expires,
            "fmspc": (state.fmspc or self.fmspc).hex().upper(),
            "pceId": "0000",
            "tcbType": 0,
            "tcbEvaluationDataNumber": state.evaluation,
        }
        levels = [
            {
                "tcb": {
                    "sgxtcbcomponents": [{"svn": level.svn}] * 16,
                    "pcesvn": self.pce_svn,
                    **(
                        {"tdxtcbcomponents": [{"svn": svn} for svn in (5, 0, 3)] + [{"svn": 0}] * 13}
                        if tee == "tdx"
                        else {}
                    ),
                },
                "tcbDate": level.date,
                "tcbStatus": level.status,
                "advisoryIDs": list(level.advisories),
            }
            for level in state.levels
        ]
        if tee == "tdx":
            module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
            info["tdxModule"] = module
            module_level = {
                "tcb": {"isvsvn": 5},
                "tcbDate": "2026-03-01T00:00:00Z",
                "tcbStatus": state.module_status,
                "advisoryIDs": [] if state.module_status == "UpToDate" else ["INTEL-SA-09999"],
            }
            info["tdxModuleIdentities"] = [{"id": "TDX_01", **module, "tcbLevels": [module_level]}]
        return {**info, "tcbLevels": levels}

    def _qe_identity(self, tee: str, state: State, issued: str, expires: str) -> dict[str, Any]:
        return {
            "id": "QE" if tee == "sgx" else "TD_QE",
            "version": 2,
            "issueDate": issued,
            "nextUpdate": expires,
            "tcbEvaluationDataNumber": state.evaluation,
            "miscselect": "00000000",
            "miscselectMask": "FFFFFFFF",
            "attributes": "11000000000000000000000000000000",
            "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
            "mrsigner": (state.qe_signer or _QE_SIGNER[tee]).hex().upper(),
            "isvprodid": 1 if tee == "sgx" else 2,
            "tcbLevels": [
                {"tcb": {"isvsvn": _QE_SVN}, "tcbDate": "2026-03-01T00:00:00Z", "tcbStatus": state.qe_status}
            ],
        }

    def _crl(
        self, issuer: x509.Certificate, key: ec.EllipticCurvePrivateKey, revoked: Sequence[int], state: State
    ) -> bytes:
        issued = datetime.fromtimestamp(state.issued, UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(issued)
            .next_update(datetime.fromtimestamp(state.expires, UTC))
            .add_extension(x509.CRLNumber(state.evaluation), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(issued).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key, SHA256()).public_bytes(Encoding.DER)

    def _certificate(
        self,
        subject: str,
        key: ec.EllipticCurvePrivateKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        *,
        ca: int | None = None,
        extension: x509.UnrecognizedExtension | None = None,
    ) -> x509.Certificate:
        begin = datetime.fromtimestamp(NOW, UTC) - timedelta(days=365)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(_name(issuer))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=20 * 365))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.BasicConstraints(ca=ca is not None, path_length=ca), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=ca is None,
                    content_commitment=ca is None,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    key_cert_sign=ca is not None,
                    crl_sign=ca is not None,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if extension is not None:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(issuer_key, SHA256())

    def _sgx_extension(self) -> bytes:
        tcb = b"".join(_pair(f"{_SGX}.2.{n}", _integer(svn)) for n, svn in enumerate(self.components, 1))
        tcb += _pair(f"{_SGX}.2.17", _integer(self.pce_svn))
        tcb += _pair(f"{_SGX}.2.18", encoded(der.OCTET_STRING, bytes(self.components)))
        flags = (True, True, self.smt)
        configuration = b"".join(
            _pair(f"{_SGX}.7.{n}", encoded(der.BOOLEAN, b"\xff" if on else b"\0")) for n, on in enumerate(flags, 1)
        )
        return encoded(
            der.SEQUENCE,
            _pair(f"{_SGX}.1", encoded(der.OCTET_STRING, b"\x77" * 16))
            + _pair(f"{_SGX}.2", encoded(der.SEQUENCE, tcb))
            + _pair(f"{_SGX}.3", encoded(der.OCTET_STRING, bytes(2)))
            + _pair(f"{_SGX}.4", encoded(der.OCTET_STRING, self.fmspc))
            + _pair(f"{_SGX}.5", encoded(der.ENUMERATED, b"\x01"))
            + _pair(f"{_SGX}.6", encoded(der.OCTET_STRING, b"\x66" * 16))
            + _pair(f"{_SGX}.7", encoded(der.SEQUENCE, configuration)),
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Not Intel: a test"),
        ]
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
