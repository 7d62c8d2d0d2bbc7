"""The security section of the session language: what is demanded of platforms, and what is put up with.

``docs/attestation.md`` has the table of what each toleration means for each kind of evidence.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema, model_validator

from sconify.policy import fields
from sconify.policy.attestation import PlatformDemands
from sconify.policy.factors import has_variables
from sconify.policy.part import ONE_OR_MORE, OR_VARIABLE, Part, invalid

Tolerance = Literal[
    "debug-mode",
    "hyperthreading",
    "insecure-igpu",
    "software-hardening-needed",
    "aepic-leak",
    "insecure-configuration",
    "outdated-tcb",
    "local-attestation-trust-cas-tcb",
    "missing-revocation-list",
    "simulated-platform",
]
"""What a policy may put up with in a platform. The last two are ours: ``missing-revocation-list`` (AMD's is not at
hand) and ``simulated-platform`` (no hardware at all). ``local-attestation-trust-cas-tcb`` is of local attestation,
which
this CAS does not do."""

ALL_ADVISORIES = "*"

_ADVISORY = re.compile(r"[A-Z]{2,12}-[A-Z]{2}-[0-9]{4,6}")


def _advisory(text: str) -> str:
    text = text.upper()
    if text != ALL_ADVISORIES and not _ADVISORY.fullmatch(text):
        raise invalid(f'got {text[:40]!r}, expected the name of an advisory such as INTEL-SA-00615, or "*" for all')
    return text


_MIN_OTP_BITS = 128
_AZURE = {
    "maa": 'mode maa is for Azure only, which this CAS does not support; use "hardware"',
    "maa-managed-tcb": "maa-managed-tcb is for Azure only, which this CAS does not support",
}


def _no_azure(value: object) -> object:
    if isinstance(value, str) and value in _AZURE:
        raise invalid(_AZURE[value])
    return "debug-mode" if value == "debug" else value


def _no_azure_keys(value: object) -> object:
    if isinstance(value, dict):
        for key in ("url", "certificates", "min_rsa_signing_key_size"):
            if key in value:
                raise invalid(f"{key} is for mode maa, so for Azure only, which this CAS does not support")
    return value


def _otp_secret(value: object) -> str:
    """Accept base32 of at least 128 bits; padding, white space and case do not count."""
    text = re.sub(r"[\s=-]", "", fields.text(value)).upper()
    if not re.fullmatch(r"[A-Z2-7]+", text):
        raise invalid("the shared secret of one-time passwords is no base32")
    if len(text) * 5 < _MIN_OTP_BITS:
        raise invalid(f"the shared secret of one-time passwords has {len(text) * 5} bits, expected {_MIN_OTP_BITS}")
    return text


OtpSecret = Annotated[str, BeforeValidator(_otp_secret), WithJsonSchema({"type": "string"}), OR_VARIABLE]


class Attestation(PlatformDemands):
    """How services are attested.

    Attributes:
        mode: ``hardware``, or ``none``: whoever asks gets the configuration (CAS in debug mode only).
        tolerate: The weaknesses of a platform that are put up with.
        ignore_advisories: The advisories that a tolerated platform may have; ``*`` alone means every one.
        trusted_scone_qe_pubkeys: Keys of quoting enclaves that no longer exist; without effect.
        must_be_sgx_local: Whether the service must run on the machine of the CAS, which no evidence says: refused.
        one_time_password_shared_secret: Who attests shows one-time passwords of this secret (RFC 6238), base32.
    """

    mode: Annotated[Literal["hardware", "none"], BeforeValidator(_no_azure), OR_VARIABLE] = "hardware"
    tolerate: Annotated[
        tuple[Annotated[Tolerance, BeforeValidator(_no_azure), OR_VARIABLE], ...], fields.as_list, OR_VARIABLE
    ] = ()
    ignore_advisories: Annotated[
        tuple[Annotated[fields.Text, AfterValidator(_advisory), OR_VARIABLE], ...], ONE_OR_MORE, OR_VARIABLE
    ] = ()
    trusted_scone_qe_pubkeys: Annotated[tuple[fields.Text, ...], fields.as_list, OR_VARIABLE] = ()
    must_be_sgx_local: Annotated[fields.Boolean, OR_VARIABLE] = False
    one_time_password_shared_secret: OtpSecret | None = None

    _azure_keys = model_validator(mode="before")(staticmethod(_no_azure_keys))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if has_variables(self):
            return self
        if ALL_ADVISORIES in self.ignore_advisories and len(self.ignore_advisories) > 1:
            raise invalid(f'"{ALL_ADVISORIES}" must be the only entry of ignore_advisories')
        if self.outdated_tcb_until is not None and "outdated-tcb" not in self.tolerate:
            raise invalid("outdated_tcb_until says nothing without outdated-tcb in tolerate")
        if "hyperthreading" in self.tolerate and "smt-disabled" in self.require:
            raise invalid("hyperthreading in tolerate and smt-disabled in require contradict each other")
        return self


class Security(Part):
    """The security section; its defaults are the secure ones.

    Attributes:
        attestation: How services are attested.
        singleton_enclaves: Whether a service may run once at a time only.
        service_access_token: What who attests must know besides.
    """

    attestation: Annotated[Attestation, OR_VARIABLE] = Attestation()
    singleton_enclaves: Annotated[fields.Boolean, OR_VARIABLE] = False
    service_access_token: Annotated[fields.Text, OR_VARIABLE] | None = None

    @model_validator(mode="after")
    def _token_is_no_trifle(self) -> Self:
        token = self.service_access_token
        if isinstance(token, str) and len(token) < 16:
            raise invalid("service_access_token has less than 16 characters: it could be guessed")
        return self
