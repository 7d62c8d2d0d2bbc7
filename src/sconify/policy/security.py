"""The security section of the session language: what is demanded of platforms, and what is put up with.

``docs/attestation.md`` has the table of what each toleration means for each kind of evidence.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from sconify.policy import fields
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

Requirement = Literal[
    "smt-disabled", "static-platform", "no-cached-keys", "alias-check", "ciphertext-hiding", "rapl-disabled", "ecc"
]
"""What a policy may demand of a platform that is not demanded of every one."""

ALL_ADVISORIES = "*"

_ADVISORY = re.compile(r"[A-Z]{2,12}-[A-Z]{2}-[0-9]{4,6}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _advisory(text: str) -> str:
    text = text.upper()
    if text != ALL_ADVISORIES and not _ADVISORY.fullmatch(text):
        raise invalid(f'got {text[:40]!r}, expected the name of an advisory such as INTEL-SA-00615, or "*" for all')
    return text


def _date(text: str) -> str:
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise invalid(f"got {text[:20]!r}, expected a date such as 2026-12-31") from None
    return text


class Attestation(Part):
    """How services are attested.

    Attributes:
        mode: ``hardware``, or ``none``: whoever asks gets the configuration (CAS in debug mode only).
        tolerate: The weaknesses of a platform that are put up with.
        ignore_advisories: The advisories that a tolerated platform may have; ``*`` alone means every one.
        outdated_tcb_until: The last day (UTC) on which ``outdated-tcb`` is put up with; without it, it is not.
        min_tcb_evaluation_data_number: How new Intel's evaluation must be at least by which a platform is judged.
        require: What is demanded besides.
    """

    mode: Literal["hardware", "none"] = "hardware"
    tolerate: Annotated[tuple[Tolerance, ...], fields.as_list] = ()
    ignore_advisories: Annotated[tuple[Annotated[fields.Text, AfterValidator(_advisory)], ...], fields.one_or_more] = ()
    outdated_tcb_until: Annotated[fields.Text, AfterValidator(_date)] | None = None
    min_tcb_evaluation_data_number: Annotated[fields.Count, Field(ge=0)] | None = None
    require: Annotated[tuple[Requirement, ...], fields.as_list] = ()

    @model_validator(mode="after")
    def _check(self) -> Self:
        if ALL_ADVISORIES in self.ignore_advisories and len(self.ignore_advisories) > 1:
            raise invalid(f'"{ALL_ADVISORIES}" must be the only entry of ignore_advisories')
        if self.outdated_tcb_until is not None and "outdated-tcb" not in self.tolerate:
            raise invalid("outdated_tcb_until says nothing without outdated-tcb in tolerate")
        if "hyperthreading" in self.tolerate and "smt-disabled" in self.require:
            raise invalid("hyperthreading in tolerate and smt-disabled in require contradict each other")
        return self

    @property
    def outdated_until(self) -> datetime | None:
        """The end of the last day on which ``outdated-tcb`` is put up with."""
        if self.outdated_tcb_until is None:
            return None
        day = datetime.strptime(self.outdated_tcb_until, "%Y-%m-%d").replace(tzinfo=UTC)
        return day.replace(hour=23, minute=59, second=59)


class Security(Part):
    """The security section; its defaults are the secure ones."""

    attestation: Attestation = Attestation()
