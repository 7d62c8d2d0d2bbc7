"""Parse SEV-SNP attestation reports, versions 2, 3 and 5. No I/O, nothing verified.

The layout is that of AMD's *SEV Secure Nested Paging Firmware ABI Specification* (document 56860): 1184 bytes,
little-endian, the signature's two numbers too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from sconify.errors import UntrustedDataError

REPORT_SIZE = 0x4A0
_SIGNED_SIZE = 0x2A0
_NUMBER_SIZE = 72
_VERSIONS = (2, 3, 5)
_ECDSA_P384_SHA384 = 1


class Product(StrEnum):
    """The families of processors; each has a root key of its own."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class SigningKey(StrEnum):
    """Which key signed a report."""

    VCEK = "vcek"
    """The key of the chip."""
    VLEK = "vlek"
    """A key that a cloud shares among its machines: it says nothing about which chip."""


@dataclass(frozen=True, kw_only=True)
class SnpTcb:
    """The security versions of a platform's firmware; ``fmc`` is Turin's only."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int | None = None

    @classmethod
    def parse(cls, data: bytes, product: Product) -> SnpTcb:
        """Parse 8 bytes; their order is the product's."""
        if product is Product.TURIN:
            return cls(fmc=data[0], bootloader=data[1], tee=data[2], snp=data[3], microcode=data[7])
        return cls(bootloader=data[0], tee=data[1], snp=data[6], microcode=data[7])

    def __str__(self) -> str:
        fmc = "" if self.fmc is None else f"fmc {self.fmc}, "
        return f"{fmc}bootloader {self.bootloader}, tee {self.tee}, snp {self.snp}, microcode {self.microcode}"


@dataclass(frozen=True, kw_only=True)
class SnpReport:
    """A well-formed report that nobody has verified yet.

    Attributes:
        version: 2, 3 or 5.
        guest_svn: The security version that the ID block gave the guest.
        policy: What the guest demands of the platform; bit 19 is DEBUG, bit 18 MIGRATE_MA.
        family_id: 16 bytes of the ID block.
        image_id: 16 bytes of the ID block.
        vmpl: The privilege level of who asked, 0 is the highest.
        platform_info: What the platform has on.
        author_key: Whether the ID block was signed by an author key.
        signing_key: Which key signed the report.
        report_data: What the guest vouches for, 64 bytes.
        measurement: What it was started with, 48 bytes.
        host_data: What the host passed at its start, 32 bytes.
        id_key_digest: SHA-384 of the key that signed the ID block, 48 bytes.
        author_key_digest: SHA-384 of the author key, 48 bytes.
        report_id: The guest's, 32 bytes.
        product: The processor's family by its CPUID; None before version 3.
        chip_id: 64 bytes; zero if the platform hides it.
        current_tcb, reported_tcb, committed_tcb, launch_tcb: 8 bytes each; ``SnpTcb`` parses them.
        signed: The bytes that are signed: all that can identify the report.
        signature: r and s.
    """

    version: int
    guest_svn: int
    policy: int
    family_id: bytes
    image_id: bytes
    vmpl: int
    platform_info: int
    author_key: bool
    signing_key: SigningKey
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    product: Product | None
    chip_id: bytes
    current_tcb: bytes
    reported_tcb: bytes
    committed_tcb: bytes
    launch_tcb: bytes
    signed: bytes = field(repr=False)
    signature: tuple[int, int] = field(repr=False)

    @property
    def debug(self) -> bool:
        """Whether the host can read and change the guest's memory."""
        return bool(self.policy >> 19 & 1)

    @property
    def migratable(self) -> bool:
        """Whether a migration agent may take the guest elsewhere."""
        return bool(self.policy >> 18 & 1)

    @classmethod
    def parse(cls, data: bytes) -> SnpReport:
        """Parse a report.

        Raises:
            UntrustedDataError: It is not 1184 bytes, of an unknown version, signed by no key, or malformed.
        """
        if len(data) != REPORT_SIZE:
            raise UntrustedDataError(f"SNP report: got {len(data)} bytes, expected {REPORT_SIZE}")
        version = _number(data, 0x000, 4)
        if version not in _VERSIONS:
            raise UntrustedDataError(f"SNP report: got version {version}, expected one of {_VERSIONS}")
        algorithm = _number(data, 0x034, 4)
        if algorithm != _ECDSA_P384_SHA384:
            raise UntrustedDataError(f"SNP report: got signature algorithm {algorithm}, expected 1: ECDSA with P-384")
        key_info = _number(data, 0x048, 4)
        signer = key_info >> 2 & 0b111
        if signer > 1 or key_info >> 5:
            raise UntrustedDataError(f"SNP report: got key info 0x{key_info:x}, expected that VCEK or VLEK signed it")
        policy = _number(data, 0x008, 8)
        if policy >> 26 or not policy >> 17 & 1:
            raise UntrustedDataError(
                f"SNP report: got guest policy 0x{policy:x}: reserved bits are not as they must be"
            )
        return cls(
            version=version,
            guest_svn=_number(data, 0x004, 4),
            policy=policy,
            family_id=data[0x010:0x020],
            image_id=data[0x020:0x030],
            vmpl=_number(data, 0x030, 4),
            platform_info=_number(data, 0x040, 8),
            author_key=bool(key_info & 1),
            signing_key=SigningKey.VLEK if signer else SigningKey.VCEK,
            report_data=data[0x050:0x090],
            measurement=data[0x090:0x0C0],
            host_data=data[0x0C0:0x0E0],
            id_key_digest=data[0x0E0:0x110],
            author_key_digest=data[0x110:0x140],
            report_id=data[0x140:0x160],
            product=_product(data[0x188], data[0x189]) if version >= 3 else None,
            chip_id=data[0x1A0:0x1E0],
            current_tcb=data[0x038:0x040],
            reported_tcb=data[0x180:0x188],
            committed_tcb=data[0x1E0:0x1E8],
            launch_tcb=data[0x1F0:0x1F8],
            signed=data[:_SIGNED_SIZE],
            signature=(
                _number(data, _SIGNED_SIZE, _NUMBER_SIZE),
                _number(data, _SIGNED_SIZE + _NUMBER_SIZE, _NUMBER_SIZE),
            ),
        )


def _product(family: int, model: int) -> Product:
    match family, model:
        case 0x19, _ if model <= 0x0F:
            return Product.MILAN
        case 0x19, _ if model >> 4 in (0x1, 0xA):
            return Product.GENOA
        case 0x1A, _ if model <= 0x11:
            return Product.TURIN
    raise UntrustedDataError(
        f"SNP report: got CPU family 0x{family:x} model 0x{model:x}, expected Milan, Genoa or Turin"
    )


def _number(data: bytes, offset: int, size: int) -> int:
    return int.from_bytes(data[offset : offset + size], "little")
