"""An AMD-shaped PKI with a root of our own: SEV-SNP reports, the certificates above them, and revocation lists.

What it makes goes through the same code as what AMD makes; only the root is another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation import der
from sconify.attestation.collateral import AmdCollateral
from tests.intel_pki import encoded

NOW = int(datetime(2026, 6, 1, tzinfo=UTC).timestamp())
CHIP = bytes(range(1, 65))

_VEK = "1.3.6.1.4.1.3704.1"
_PSS = padding.PSS(padding.MGF1(SHA384()), 48)
_CPUID = {"Milan": (0x19, 0x01), "Genoa": (0x19, 0x11), "Turin": (0x1A, 0x02)}
_TCB_NUMBERS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8"}


@cache
def _rsa_key(_number: int) -> rsa.RSAPrivateKey:
    """A key that is made once for all tests of a run: RSA-4096 takes its time."""
    return rsa.generate_private_key(public_exponent=65537, key_size=4096)


@dataclass(frozen=True, kw_only=True)
class Tcb:
    """A TCB, and how a product encodes it."""

    bootloader: int = 4
    tee: int = 0
    snp: int = 24
    microcode: int = 219
    fmc: int = 1

    def encode(self, product: str) -> bytes:
        if product == "Turin":
            return bytes([self.fmc, self.bootloader, self.tee, self.snp, 0, 0, 0, self.microcode])
        return bytes([self.bootloader, self.tee, 0, 0, 0, 0, self.snp, self.microcode])


@dataclass
class AmdPki:
    """A root, its intermediates, and one chip."""

    product: str = "Milan"
    number: int = 0
    """PKIs of another number have other keys."""
    tcb: Tcb = field(default_factory=Tcb)
    chip: bytes = CHIP
    vek_key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP384R1()))

    @property
    def ark_key(self) -> rsa.RSAPrivateKey:
        return _rsa_key(2 * self.number)

    @property
    def ask_key(self) -> rsa.RSAPrivateKey:
        return _rsa_key(2 * self.number + 1)

    @cached_property
    def ark(self) -> x509.Certificate:
        return self._authority(f"ARK-{self.product}", self.ark_key)

    @cached_property
    def ask(self) -> x509.Certificate:
        return self._authority(f"SEV-{self.product}", self.ask_key)

    @cached_property
    def asvk(self) -> x509.Certificate:
        return self._authority(f"SEV-VLEK-{self.product}", self.ask_key)

    def vek(
        self,
        kind: str = "VCEK",
        *,
        tcb: Tcb | None = None,
        chip: bytes | None = None,
        product: str | None = None,
        begins: int = NOW - 86400,
        ends: int = NOW + 86400,
    ) -> x509.Certificate:
        """The certificate of the key that signs reports."""
        tcb, chip, product = tcb or self.tcb, chip or self.chip, product or self.product
        issuer = self.ask if kind == "VCEK" else self.asvk
        extensions = {f"{_VEK}.1": encoded(der.INTEGER, b"\0"), f"{_VEK}.2": encoded(der.IA5_STRING, product.encode())}
        for name, number in _TCB_NUMBERS.items():
            value = getattr(tcb, name)
            extensions[f"{_VEK}.{number}"] = encoded(der.INTEGER, value.to_bytes(value.bit_length() // 8 + 1))
        if product == "Turin":
            extensions[f"{_VEK}.3.9"] = encoded(der.INTEGER, bytes([tcb.fmc]))
        if kind == "VCEK":
            hwid = chip[:8] if product == "Turin" else chip
            extensions[f"{_VEK}.4"] = encoded(der.OCTET_STRING, hwid)
        else:
            extensions[f"{_VEK}.5"] = encoded(der.IA5_STRING, b"CN=cloud.example")
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(f"SEV-{kind}"))
            .issuer_name(issuer.subject)
            .public_key(self.vek_key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(begins, UTC))
            .not_valid_after(datetime.fromtimestamp(ends, UTC))
        )
        for dotted, content in extensions.items():
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(dotted), content), critical=False
            )
        return builder.sign(self.ask_key, SHA384(), rsa_padding=_PSS)

    def report(
        self,
        *,
        version: int = 3,
        report_data: bytes = bytes(64),
        measurement: bytes = b"\x51" * 48,
        host_data: bytes = bytes(32),
        id_key_digest: bytes = bytes(48),
        guest_svn: int = 0,
        policy: int = 0x3_001F,
        vmpl: int = 0,
        key_info: int = 0,
        platform_info: int = 0x25,
        algorithm: int = 1,
        tcbs: dict[str, Tcb] | None = None,
        chip: bytes | None = None,
        cpuid: tuple[int, int] | None = None,
    ) -> bytes:
        """A report that the chip's key signed, 1184 bytes."""
        product = self.product
        chip = self.chip if chip is None else chip
        if product == "Turin":
            chip = chip[:8] + bytes(56)
        data = bytearray(0x4A0)

        def put(offset: int, value: bytes) -> None:
            data[offset : offset + len(value)] = value

        put(0x000, version.to_bytes(4, "little"))
        put(0x004, guest_svn.to_bytes(4, "little"))
        put(0x008, policy.to_bytes(8, "little"))
        put(0x030, vmpl.to_bytes(4, "little"))
        put(0x034, algorithm.to_bytes(4, "little"))
        put(0x040, platform_info.to_bytes(8, "little"))
        put(0x048, key_info.to_bytes(4, "little"))
        put(0x050, report_data)
        put(0x090, measurement)
        put(0x0C0, host_data)
        put(0x0E0, id_key_digest)
        if version >= 3:
            put(0x188, bytes(cpuid or _CPUID[product]))
        put(0x1A0, chip)
        for name, offset in (("current", 0x038), ("reported", 0x180), ("committed", 0x1E0), ("launch", 0x1F0)):
            put(offset, (tcbs or {}).get(name, self.tcb).encode(product))
        r, s = decode_dss_signature(self.vek_key.sign(bytes(data[:0x2A0]), ec.ECDSA(SHA384())))
        put(0x2A0, r.to_bytes(72, "little") + s.to_bytes(72, "little"))
        return bytes(data)

    def chain_pem(self, kind: str = "VCEK") -> bytes:
        intermediate = self.ask if kind == "VCEK" else self.asvk
        return intermediate.public_bytes(Encoding.PEM) + self.ark.public_bytes(Encoding.PEM)

    def crl(
        self,
        *,
        revoked: Sequence[x509.Certificate] = (),
        issued: int = NOW - 86400,
        expires: int = NOW + 86400,
        number: int = 5,
        key: rsa.RSAPrivateKey | None = None,
    ) -> bytes:
        """The root's revocation list in DER."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ark.subject)
            .last_update(datetime.fromtimestamp(issued, UTC))
            .next_update(datetime.fromtimestamp(expires, UTC))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for certificate in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number)
            builder = builder.add_revoked_certificate(
                entry.revocation_date(datetime.fromtimestamp(issued, UTC)).build()
            )
        signed = builder.sign(key or self.ark_key, SHA384(), rsa_padding=_PSS)
        return signed.public_bytes(Encoding.DER)

    def collateral(self, kind: str = "VCEK", *, crl: bytes | bool | None = True) -> AmdCollateral:
        """What stands above the chip's key; ``crl`` True is a fresh list that revokes nothing."""
        return AmdCollateral.parse(self.chain_pem(kind), crl=self.crl() if crl is True else crl or None)

    def _authority(self, name: str, key: rsa.RSAPrivateKey) -> x509.Certificate:
        begin = datetime.fromtimestamp(NOW, UTC) - timedelta(days=365)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(f"ARK-{self.product}"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + timedelta(days=25 * 365))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.ark_key, SHA384(), rsa_padding=_PSS)
        )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Not AMD: a test"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name),
        ]
    )
