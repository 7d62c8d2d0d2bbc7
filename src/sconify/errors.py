"""The errors of the whole project: one base class, one family for each kind of fault, one exit code for each family.

A message says what is wrong, what was got and what was expected; ``remedy`` names the flag or the action that mends it.
"""

from __future__ import annotations


class SconifyError(Exception):
    """The base of every error that a user may see.

    Args:
        what: What is wrong, in one line: got versus expected.
        remedy: The flag or action that mends it, as an imperative ("give --binary=PATH"), or None.
    """

    exit_code = 70

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def diagnostics(self) -> str:
        """Return the message for a person: what is wrong with its remedy in one line, then a line for each cause."""
        lines = [f"{self.what}; {self.remedy}" if self.remedy else self.what]
        cause = self.__cause__
        while cause is not None:
            lines.append(f"  Caused by: {cause.what if isinstance(cause, SconifyError) else cause}")
            cause = cause.__cause__
        return "\n".join(lines)


class UserError(SconifyError):
    """The caller's input is wrong: a flag, a file that the caller named, an image that can't be converted."""

    exit_code = 2


class UntrustedDataError(SconifyError):
    """Data from outside failed a check: a malformed image, a forged quote, a changed file."""

    exit_code = 3


class ServiceError(SconifyError):
    """Something we depend on failed: a CAS, a registry, the Docker engine, the disk."""

    exit_code = 4


class BugError(SconifyError):
    """A state that can't be, so ours to mend."""

    exit_code = 70
