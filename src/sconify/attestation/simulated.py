"""Evidence of the simulated platform: the real protocol without hardware (docs/protocol.md, section 7).

The signing key is public, so this evidence proves nothing about hardware. It has its own kind, and is accepted only
where the server's mode and the policy both allow it (``sconify.attestation.judge``).
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.members import Members, base64url
from sconify.attestation.proof import PROOF
from sconify.errors import UntrustedDataError
from sconify.policy.canonical import canonical_json

KIND = "simulated"
_VERSION = 1
_DOMAIN = b"sconify simulated evidence v1\0"
_SIGNING_KEY = Ed25519PrivateKey.from_private_bytes(
    hashlib.sha256(b"sconify simulated platform: anybody can forge this").digest()
)
_VERIFYING_KEY = _SIGNING_KEY.public_key()
_MEMBERS = {"measurement", "report_data", "debug", "issued_at", "signature"}
_LATEST = 2**53  # the largest integer that every JSON reader keeps exact


@dataclass(frozen=True, kw_only=True)
class SimulatedEvidence:
    """Well-formed evidence that nobody has verified yet.

    Attributes:
        measurement: 32 bytes.
        report_data: 64 bytes.
        issued_at: Seconds since 1970, the issuer's word.
        signature: 64 bytes.
    """

    measurement: bytes
    report_data: bytes
    issued_at: int
    signature: bytes

    @classmethod
    def parse(cls, data: object) -> SimulatedEvidence:
        """Parse the JSON object of the protocol, strictly.

        Raises:
            UntrustedDataError: A member is missing, unknown, or not of the form that the protocol gives.
        """
        members = Members(data, kind=KIND, version=_VERSION, names=_MEMBERS)
        # The simulated platform is never anything but debug.
        members.require("debug", True)
        return cls(
            measurement=members.hex("measurement", 32),
            report_data=members.hex("report_data", 64),
            issued_at=members.integer("issued_at", largest=_LATEST),
            signature=members.base64url("signature", size=64),
        )

    def verify(self, *, expected_report_data: bytes) -> VerifiedEvidence:
        """Verify the signature and the binding to a request.

        Args:
            expected_report_data: What the evidence must be bound to, 64 bytes.

        Raises:
            UntrustedDataError: The signature is not the simulated platform's, or the report data is another's.
        """
        try:
            _VERIFYING_KEY.verify(self.signature, _message(self._signed()))
        except InvalidSignature:
            raise UntrustedDataError("check signature: it is not the simulated platform's over this evidence") from None
        if not hmac.compare_digest(self.report_data, expected_report_data):
            raise UntrustedDataError(
                f"check report data: got {self.report_data.hex()[:16]}…, expected {expected_report_data.hex()[:16]}…: "
                "the evidence was made for another nonce, key or configuration id"
            )
        return VerifiedEvidence(kind=KIND, measurement=self.measurement, debug=True, proof=PROOF)

    def _signed(self) -> dict[str, str | int | bool]:
        return _members(measurement=self.measurement, report_data=self.report_data, issued_at=self.issued_at)


def issue(*, measurement: bytes, report_data: bytes, issued_at: int) -> dict[str, str | int | bool]:
    """Issue evidence as the simulated platform.

    Args:
        measurement: 32 bytes.
        report_data: 64 bytes.
        issued_at: Seconds since 1970.

    Returns:
        The JSON object of the protocol.
    """
    members = _members(measurement=measurement, report_data=report_data, issued_at=issued_at)
    return {**members, "signature": base64url(_SIGNING_KEY.sign(_message(members)))}


def _members(*, measurement: bytes, report_data: bytes, issued_at: int) -> dict[str, str | int | bool]:
    return {
        "kind": KIND,
        "version": _VERSION,
        "measurement": measurement.hex(),
        "report_data": report_data.hex(),
        "debug": True,
        "issued_at": issued_at,
    }


def _message(members: dict[str, str | int | bool]) -> bytes:
    return _DOMAIN + canonical_json(members)
