"""What a service must prove: the ``attestation`` of a service."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from sconify.policy import fields
from sconify.policy.part import ONE_OR_MORE, OR_VARIABLE, Part, invalid


class Signer(Part):
    """Who signed the enclave, and which of its products and versions count.

    Attributes:
        mrsigner: The hash of the signer's key, 64 hex digits.
        isvprodid: The product.
        isvsvn: The only version that counts; excludes the range.
        isvsvn_min: The oldest version that counts.
        isvsvn_max: The newest version that counts.
    """

    mrsigner: Annotated[fields.Digest, OR_VARIABLE]
    isvprodid: Annotated[fields.Count, OR_VARIABLE]
    isvsvn: Annotated[fields.Count, OR_VARIABLE] | None = None
    isvsvn_min: Annotated[fields.Count, OR_VARIABLE] | None = None
    isvsvn_max: Annotated[fields.Count, OR_VARIABLE] | None = None

    @model_validator(mode="after")
    def _exact_or_range(self) -> Self:
        if self.isvsvn is not None and (self.isvsvn_min is not None or self.isvsvn_max is not None):
            raise invalid("isvsvn and isvsvn_min or isvsvn_max exclude each other")
        low, high = self.isvsvn_min, self.isvsvn_max
        if isinstance(low, int) and isinstance(high, int) and low > high:
            raise invalid(f"isvsvn_min {low} is above isvsvn_max {high}")
        return self


class Factor(Part):
    """One alternative of what a service must prove; all of its members must hold.

    Attributes:
        mrenclave: The accepted measurements, 64 hex digits each; empty: not asked for.
        signer: The accepted signer; None: not asked for.
    """

    mrenclave: Annotated[
        tuple[Annotated[fields.Digest, OR_VARIABLE], ...], Field(min_length=1), ONE_OR_MORE, OR_VARIABLE
    ] = ()
    signer: Annotated[Signer, OR_VARIABLE] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self.mrenclave and self.signer is None:
            raise invalid("this factor asks for nothing: give mrenclave, signer or both")
        return self


Factors = Annotated[tuple[Annotated[Factor, OR_VARIABLE], ...], Field(min_length=1), ONE_OR_MORE]


def _platform(value: object) -> str:
    """Accept the id of an Intel quoting enclave, 32 hex digits; or the public key of an old one, 64."""
    text = fields.text(value)
    digits = text.removeprefix("INTEL_QE_ID:")
    if not all(digit in "0123456789abcdefABCDEF" for digit in digits) or len(digits) not in (32, 64):
        raise invalid(f"got {text[:40]!r}, expected INTEL_QE_ID: and 32 hex digits")
    return digits.lower()


Platform: Any = Annotated[str, BeforeValidator(_platform), OR_VARIABLE]
