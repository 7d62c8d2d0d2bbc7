"""One check of evidence: what was got, what was expected, whether it holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sconify.errors import UntrustedDataError


@dataclass(frozen=True)
class Check:
    """A check and its outcome.

    Attributes:
        name: What is checked, as messages and the audit log name it.
        passed: Whether it holds.
        got: What the evidence has.
        expected: What it must have.
        remedy: What mends it.
    """

    name: str
    passed: bool
    got: str
    expected: str
    remedy: str | None = None

    def error(self) -> UntrustedDataError:
        """Return the error of a check that does not hold."""
        return UntrustedDataError(f"check {self.name}: got {self.got}, expected {self.expected}", remedy=self.remedy)


def require(checks: Iterable[Check]) -> None:
    """Make sure that all checks hold.

    Raises:
        UntrustedDataError: One does not; the message is the first one's.
    """
    for check in checks:
        if not check.passed:
            raise check.error()
