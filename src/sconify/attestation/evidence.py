"""Verified evidence, and what binds evidence to a request.

Evidence goes three steps, each with its own type: *parse* (a kind's own type), *verify* (``VerifiedEvidence``: it is
genuine and bound to this request) and *judge* (does the policy accept it). Only the verifiers of this package can make
``VerifiedEvidence``.
"""

from __future__ import annotations

import hashlib
from dataclasses import InitVar, dataclass, field

from sconify.attestation.intel import VerifiedQuote
from sconify.attestation.proof import PROOF
from sconify.attestation.snp import VerifiedReport
from sconify.errors import BugError


@dataclass(frozen=True, kw_only=True)
class VerifiedEvidence:
    """Evidence whose signature and binding have been verified.

    Attributes:
        kind: The evidence kind: ``sgx``, ``tdx``, ``snp`` or ``simulated``.
        measurement: The identity of what runs, 32 bytes.
        debug: Whether the platform can look into what runs.
        platform: What the hardware says; None for the simulated platform.
    """

    kind: str
    measurement: bytes
    debug: bool
    platform: VerifiedQuote | VerifiedReport | None = None
    proof: InitVar[object] = field(kw_only=True)

    def __post_init__(self, proof: object) -> None:
        if proof is not PROOF:
            raise BugError("VerifiedEvidence was made without verification")

    @property
    def simulated(self) -> bool:
        """Whether no hardware vouches for it: it is the simulated platform's, or its root is a test's."""
        return self.platform is None or self.platform.test_root is not None


def service_report_data(*, nonce: bytes, public_key: bytes, config_id: str) -> bytes:
    """Return the report data of a service that attests (docs/protocol.md, section 4).

    Args:
        nonce: The CAS's nonce, 32 bytes.
        public_key: The runtime's ephemeral P-256 key as an uncompressed point, 65 bytes.
        config_id: ``SESSION/SERVICE``.

    Returns:
        64 bytes.
    """
    return _hash(b"sconify attestation v1", nonce, public_key, config_id.encode())


def cas_report_data(*, nonce: bytes, spki: bytes, mode: str) -> bytes:
    """Return the report data of a CAS that shows its identity (docs/protocol.md, section 5).

    Args:
        nonce: The client's nonce, 32 bytes.
        spki: The CAS key's SubjectPublicKeyInfo in DER.
        mode: ``debug`` or ``production``.

    Returns:
        64 bytes.
    """
    return _hash(b"sconify CAS identity v1", nonce, spki, mode.encode())


def las_report_data(*, kind: str, las_key: bytes, report_data: bytes) -> bytes:
    """Return the report data by which hardware vouches for a LAS (docs/protocol.md, section 7).

    Args:
        kind: The evidence kind.
        las_key: The LAS's Ed25519 key, 32 bytes.
        report_data: What the service asked to bind, 64 bytes: so the hardware's word is as fresh as the service's.

    Returns:
        64 bytes.
    """
    return _hash(b"sconify LAS v1", kind.encode(), las_key, report_data)


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha512(b"".join(len(part).to_bytes(4) + part for part in parts)).digest()
