"""Evidence of an SGX enclave: its quote, which binds the request by itself (docs/protocol.md, section 7)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.members import Members, base64url
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import MAX_QUOTE, Quote, SgxReport
from sconify.errors import UntrustedDataError

KIND = "sgx"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class SgxEvidence:
    """Well-formed evidence that nobody has verified yet."""

    quote: Quote

    @classmethod
    def parse(cls, data: object) -> SgxEvidence:
        """Parse the JSON object of the protocol, strictly.

        Raises:
            UntrustedDataError: It is malformed, or its quote is none of an enclave.
        """
        members = Members(data, kind=KIND, version=_VERSION, names={"quote"})
        quote = Quote.parse(members.base64url("quote", largest=MAX_QUOTE))
        if quote.tee != KIND:
            raise UntrustedDataError(f"sgx evidence: got a {quote.tee} quote")
        return cls(quote=quote)

    def verify(self, *, expected_report_data: bytes, authorities: Authorities, at: int) -> VerifiedEvidence:
        """Verify the quote and its binding to a request.

        Args:
            expected_report_data: What the enclave must vouch for, 64 bytes.
            authorities: What it is verified against.
            at: The time, in seconds since 1970.

        Raises:
            UntrustedDataError: It is not genuine, or was made for something else.
            ServiceError: There is no collateral for its platform.
        """
        platform = authorities.verify_quote(self.quote, at=at)
        body = platform.body
        assert isinstance(body, SgxReport)
        if not hmac.compare_digest(body.report_data, expected_report_data):
            raise UntrustedDataError(
                "check report data: the evidence was made for another nonce, key or configuration id"
            )
        return VerifiedEvidence(kind=KIND, measurement=body.mrenclave, debug=body.debug, platform=platform, proof=PROOF)


def encode(quote: bytes) -> dict[str, str | int]:
    """Return the JSON object of the protocol for a quote."""
    return {"kind": KIND, "version": _VERSION, "quote": base64url(quote)}
