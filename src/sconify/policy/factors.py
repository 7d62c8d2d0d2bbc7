"""What a service must prove: the ``attestation`` of a service."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from sconify.policy import fields
from sconify.policy.attestation import ANY, PUBLIC_SIGNERS, Measurements, Snp, Tdx, any_alone
from sconify.policy.part import ONE_OR_MORE, OR_VARIABLE, Part, invalid, variables

_Small = Annotated[fields.Count, Field(ge=0, le=0xFFFF), OR_VARIABLE]


def has_variables(part: Part) -> bool:
    """Tell whether parts are still variables, so that what must hold between the parts can't be said yet."""
    return next(variables(part), None) is not None


class Signer(Part):
    """Who signed an enclave, which product it is, and how old it may be.

    Attributes:
        mrsigner: SHA-256 of the modulus of the signer's key, 64 hex digits.
        isvprodid: The signer's number of the product.
        isvsvn: The one accepted security version.
        isvsvn_min: The oldest accepted security version.
        isvsvn_max: The newest accepted security version.
    """

    mrsigner: Annotated[fields.Digest, OR_VARIABLE]
    isvprodid: _Small
    isvsvn: _Small | None = None
    isvsvn_min: _Small | None = None
    isvsvn_max: _Small | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if has_variables(self):
            return self
        if self.mrsigner in PUBLIC_SIGNERS:
            raise invalid(f"the private key of mrsigner {self.mrsigner} is public: it would accept everybody's enclave")
        if self.isvsvn is not None and (self.isvsvn_min is not None or self.isvsvn_max is not None):
            raise invalid("isvsvn and isvsvn_min or isvsvn_max exclude each other")
        if self.isvsvn is None and self.isvsvn_min is None:
            raise invalid("isvsvn_min is missing: give the oldest version to accept (0 accepts every one), or isvsvn")
        if self.isvsvn_max is not None and (self.isvsvn_min or 0) > self.isvsvn_max:
            raise invalid(f"no version is from {self.isvsvn_min} to {self.isvsvn_max}")
        return self


class Factor(Part):
    """One alternative of what a service must prove; all of its members must hold.

    Attributes:
        mrenclave: The accepted measurements of the program, 64 hex digits each; in a confidential VM also ``any``.
        signer: Who must have signed the enclave (SGX).
        tdx: The trust domains in which it may run.
        snp: The SEV-SNP guests in which it may run.
    """

    mrenclave: Measurements = ()
    signer: Annotated[Signer, OR_VARIABLE] | None = None
    tdx: Annotated[Tdx, OR_VARIABLE] | None = None
    snp: Annotated[Snp, OR_VARIABLE] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.mrenclave and self.signer is None and self.tdx is None and self.snp is None:
            raise invalid("it names nothing: give mrenclave, signer, tdx or snp")
        if sum(part is not None for part in (self.signer, self.tdx, self.snp)) > 1:
            raise invalid(
                "signer (SGX), tdx and snp exclude each other: no program is on two platforms; give a list of factors"
            )
        if has_variables(self):
            return self  # what they stand for is looked at when it is there
        if self.in_vm and not self.mrenclave:
            raise invalid(
                "mrenclave is missing: name the measurements of the program that may run in this VM, "
                f"or say {ANY} to accept every program in it"
            )
        any_alone(self.mrenclave)
        if ANY in self.mrenclave and not self.in_vm:
            raise invalid(f"{ANY} is only for a program in a VM that tdx or snp names")
        return self

    @property
    def in_vm(self) -> bool:
        """Whether it is about a program in a confidential VM."""
        return self.tdx is not None or self.snp is not None


Factors = Annotated[tuple[Annotated[Factor, OR_VARIABLE], ...], ONE_OR_MORE]


def _platform(value: object) -> str:
    """Accept the id of an Intel quoting enclave, 32 hex digits; or the public key of an old one, 64."""
    text = fields.text(value)
    digits = text.removeprefix("INTEL_QE_ID:")
    if not all(digit in "0123456789abcdefABCDEF" for digit in digits) or len(digits) not in (32, 64):
        raise invalid(f"got {text[:40]!r}, expected INTEL_QE_ID: and 32 hex digits")
    return digits.lower()


Platform: Any = Annotated[str, BeforeValidator(_platform), OR_VARIABLE]
