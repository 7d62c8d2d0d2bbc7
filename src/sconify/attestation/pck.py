"""What the PCK certificate of an Intel platform says (extension 1.2.840.113741.1.13.1)."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from sconify.attestation import der
from sconify.attestation.malformed import refused_if_malformed
from sconify.errors import UntrustedDataError

_SGX = "1.2.840.113741.1.13.1"
_PPID, _TCB, _PCEID, _FMSPC, _INSTANCE, _CONFIGURATION = (der.oid(f"{_SGX}.{number}") for number in (1, 2, 3, 4, 6, 7))
_COMPONENTS = tuple(der.oid(f"{_SGX}.2.{number}") for number in range(1, 17))
_PCESVN = der.oid(f"{_SGX}.2.17")
_DYNAMIC, _CACHED_KEYS, _SMT = (der.oid(f"{_SGX}.7.{number}") for number in (1, 2, 3))


@dataclass(frozen=True, kw_only=True)
class PlatformCertificate:
    """The platform that a PCK certificate is for.

    Attributes:
        fmspc: Family, model and stepping of the platform, 6 bytes: which TCB information is for it.
        pce_id: 2 bytes.
        components: The security versions of the 16 components of its TCB.
        pce_svn: The security version of the PCE.
        instance_id: Which platform it is, 16 bytes; None for one with a single processor.
        dynamic: Whether processors can be added to it; None: the certificate does not say.
        cached_keys: Whether Intel keeps its root keys; None: the certificate does not say.
        smt: Whether hyper-threading is on; None: the certificate does not say.
    """

    fmspc: bytes
    pce_id: bytes
    components: tuple[int, ...]
    pce_svn: int
    instance_id: bytes | None
    dynamic: bool | None
    cached_keys: bool | None
    smt: bool | None

    @classmethod
    def parse(cls, certificate: x509.Certificate) -> PlatformCertificate:
        """Read the extension of a PCK certificate.

        Raises:
            UntrustedDataError: It is missing, incomplete or malformed.
        """
        with refused_if_malformed("PCK certificate"):
            try:
                extension = certificate.extensions.get_extension_for_oid(x509.ObjectIdentifier(_SGX)).value
            except x509.ExtensionNotFound:
                raise UntrustedDataError("PCK certificate: it has no SGX extension") from None
        assert isinstance(extension, x509.UnrecognizedExtension)
        fields = _pairs(der.parse(extension.value))
        tcb = _pairs(_required(fields, _TCB, "TCB"))
        configuration = _pairs(fields[_CONFIGURATION]) if _CONFIGURATION in fields else {}
        return cls(
            fmspc=_octets(_required(fields, _FMSPC, "FMSPC"), 6),
            pce_id=_octets(_required(fields, _PCEID, "PCEID"), 2),
            components=tuple(_required(tcb, name, "TCB component").unsigned() for name in _COMPONENTS),
            pce_svn=_required(tcb, _PCESVN, "PCESVN").unsigned(),
            instance_id=_octets(fields[_INSTANCE], 16) if _INSTANCE in fields else None,
            dynamic=_flag(configuration, _DYNAMIC),
            cached_keys=_flag(configuration, _CACHED_KEYS),
            smt=_flag(configuration, _SMT),
        )


def _pairs(sequence: der.Element) -> dict[bytes, der.Element]:
    """Return a sequence of (identifier, value) as a mapping; one that is given twice is refused."""
    found: dict[bytes, der.Element] = {}
    for entry in sequence.expect(der.SEQUENCE).children():
        parts = entry.expect(der.SEQUENCE).children()
        if len(parts) != 2 or parts[0].expect(der.OBJECT_IDENTIFIER).content in found:
            raise UntrustedDataError("PCK certificate: its SGX extension is malformed")
        found[parts[0].content] = parts[1]
    return found


def _required(fields: dict[bytes, der.Element], name: bytes, what: str) -> der.Element:
    if name not in fields:
        raise UntrustedDataError(f"PCK certificate: its SGX extension has no {what}")
    return fields[name]


def _octets(element: der.Element, size: int) -> bytes:
    content = element.expect(der.OCTET_STRING).content
    if len(content) != size:
        raise UntrustedDataError(f"PCK certificate: got {len(content)} bytes in its SGX extension, expected {size}")
    return content


def _flag(fields: dict[bytes, der.Element], name: bytes) -> bool | None:
    return fields[name].expect(der.BOOLEAN).content != b"\0" if name in fields else None
