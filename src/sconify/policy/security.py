"""The security section of the session language: what is demanded of platforms, and what is put up with.

``docs/attestation.md`` has the table of what each toleration means for each kind of evidence.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, model_validator

from sconify.policy import fields
from sconify.policy.attestation import PlatformDemands
from sconify.policy.fields import invalid
from sconify.policy.part import Part

Tolerance = Literal[
    "debug-mode",
    "hyperthreading",
    "insecure-igpu",
    "software-hardening-needed",
    "aepic-leak",
    "insecure-configuration",
    "outdated-tcb",
    "missing-revocation-list",
    "simulated-platform",
]
"""What a policy may put up with in a platform. The last two are ours: ``missing-revocation-list`` (AMD's is not at
hand) and ``simulated-platform`` (no hardware at all)."""

ALL_ADVISORIES = "*"

_ADVISORY = re.compile(r"[A-Z]{2,12}-[A-Z]{2}-[0-9]{4,6}")


def _advisory(text: str) -> str:
    text = text.upper()
    if text != ALL_ADVISORIES and not _ADVISORY.fullmatch(text):
        raise invalid(f'got {text[:40]!r}, expected the name of an advisory such as INTEL-SA-00615, or "*" for all')
    return text


class Attestation(PlatformDemands):
    """How services are attested.

    Attributes:
        mode: ``hardware``, or ``none``: whoever asks gets the configuration (CAS in debug mode only).
        tolerate: The weaknesses of a platform that are put up with.
        ignore_advisories: The advisories that a tolerated platform may have; ``*`` alone means every one.
    """

    mode: Literal["hardware", "none"] = "hardware"
    tolerate: Annotated[tuple[Tolerance, ...], fields.as_list] = ()
    ignore_advisories: Annotated[tuple[Annotated[fields.Text, AfterValidator(_advisory)], ...], fields.one_or_more] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if ALL_ADVISORIES in self.ignore_advisories and len(self.ignore_advisories) > 1:
            raise invalid(f'"{ALL_ADVISORIES}" must be the only entry of ignore_advisories')
        if self.outdated_tcb_until is not None and "outdated-tcb" not in self.tolerate:
            raise invalid("outdated_tcb_until says nothing without outdated-tcb in tolerate")
        if "hyperthreading" in self.tolerate and "smt-disabled" in self.require:
            raise invalid("hyperthreading in tolerate and smt-disabled in require contradict each other")
        return self


class Security(Part):
    """The security section; its defaults are the secure ones."""

    attestation: Attestation = Attestation()
