"""What is demanded of AMD platforms, and what a policy can put up with (docs/attestation.md has the table)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sconify.attestation.checks import Check
from sconify.attestation.snp import VerifiedReport
from sconify.policy.security import Attestation

_NO_LIST = "missing-revocation-list"

_PLATFORM_INFO: Final = {
    "smt-disabled": (0, False),
    "ecc": (2, True),
    "rapl-disabled": (3, True),
    "ciphertext-hiding": (4, True),
    "alias-check": (5, True),
}
"""By what a policy can require: the bit of PLATFORM_INFO, and its value."""


def report_checks(verified: VerifiedReport, policy: Attestation, *, tolerated: list[str]) -> list[Check]:
    """Return the checks of the platform of a report.

    Args:
        verified: The verified report.
        policy: What is demanded.
        tolerated: Gets what is put up with, in words.
    """
    report = verified.report
    listed = verified.revocation_checked
    put_up = not listed and _NO_LIST in policy.tolerate
    if put_up:
        tolerated.append(_NO_LIST)
    return [
        Check(
            "revocation list",
            listed or put_up,
            "AMD's, in date" if listed else "none",
            "AMD's, in date",
            f"import it with `sconify cas collateral import`, or add {_NO_LIST} to security.attestation.tolerate",
        ),
        Check("debug", not report.debug, "on" if report.debug else "off", "off"),
        Check(
            "migration agent", not report.migratable, "allowed" if report.migratable else "not allowed", "not allowed"
        ),
        *_platform_checks(report.platform_info, policy.require),
    ]


def _platform_checks(info: int, required: Sequence[str]) -> list[Check]:
    # What only Intel's platforms can say is no demand on others.
    return [
        Check(
            f"platform flag {word}",
            bool(info >> bit & 1) == value,
            f"PLATFORM_INFO 0x{info:x}",
            f"bit {bit} is {int(value)}",
        )
        for word, (bit, value) in _PLATFORM_INFO.items()
        if word in required
    ]
