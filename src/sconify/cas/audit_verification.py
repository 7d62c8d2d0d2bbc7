"""Verify an audit log without the CAS that wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sconify.cas.audit import FIRST, KEY_DOMAIN, verify_line
from sconify.errors import UntrustedDataError
from sconify.policy.keyhash import key_hash


class Finding(IntEnum):
    """What is wrong with a log, by the exit codes of ``scone cas verify-audit-log``."""

    MISSING_AT_THE_END = 14
    MISSING_AT_THE_BEGINNING = 15
    END_NOT_KNOWN = 16
    MISSING_BETWEEN = 17
    ANOTHER_CAS = 19
    CHANGED = 20


class AuditLogError(UntrustedDataError):
    """A log is not what a CAS wrote."""

    def __init__(self, what: str, *, finding: Finding) -> None:
        super().__init__(what)
        self.finding = finding


@dataclass(frozen=True, kw_only=True)
class VerifiedLog:
    """What a log says that was verified as a whole.

    Attributes:
        cas_key: The key hash of the CAS that wrote it.
        lines: How many lines it has.
        first_time: When the first was written, seconds since 1970.
        last_time: When the last was written.
        head: The hash of the last line, 64 hex digits: a longer log of the same CAS has this line too.
    """

    cas_key: str
    lines: int
    first_time: int
    last_time: int
    head: str


class LogVerifier:
    """Verifies a log line by line, from its first one; more lines may come later.

    Args:
        cas_key: The key hash that its CAS must have; None: any.
        head: The hash of a line that it must have, as an earlier verification has shown it; None: none.
    """

    def __init__(self, *, cas_key: str | None, head: str | None = None) -> None:
        self._expected = cas_key
        self._awaited = head
        self._key: Ed25519PublicKey | None = None
        self._writer = ""
        self._previous = FIRST
        self._times = (0, 0)
        self.lines = 0
        """How many lines were verified."""

    def feed(self, line: bytes) -> None:
        """Verify the next line.

        Args:
            line: The line with its newline.

        Raises:
            AuditLogError: It was changed, does not follow the one before, or the log is another CAS's.
        """
        number = self.lines + 1
        record = _parse(line, number)
        if self._key is None:
            self._key, self._writer = _first_key(record)
            if self._expected not in (None, self._writer):
                raise AuditLogError(
                    f"line 1: the log is that of the CAS {self._writer}, expected {self._expected}",
                    finding=Finding.ANOTHER_CAS,
                )
        try:
            verify_line(record, self._key)
        except (InvalidSignature, ValueError, KeyError, TypeError):
            raise _changed(f"line {number}: its signature is not valid: it was changed") from None
        if record.get("seq") != number or record.get("previous") != self._previous:
            raise AuditLogError(
                f"line {number}: it does not follow the line before: lines are missing or moved",
                finding=Finding.MISSING_BETWEEN,
            )
        time = record.get("time")
        assert isinstance(time, int)
        self._times = (self._times[0] or time, time)
        self._previous = hashlib.sha256(line.removesuffix(b"\n")).hexdigest()
        if self._previous == self._awaited:
            self._awaited = None
        self.lines = number

    def result(self) -> VerifiedLog:
        """Return what the lines so far were found to be.

        Raises:
            AuditLogError: There was none, or not the one that must be there.
        """
        if self.lines == 0:
            raise AuditLogError("the log is empty", finding=Finding.MISSING_AT_THE_BEGINNING)
        if self._awaited is not None:
            raise AuditLogError(
                f"the log has no line with hash {self._awaited}: lines are missing at its end, or it is another",
                finding=Finding.MISSING_AT_THE_END,
            )
        first, last = self._times
        return VerifiedLog(
            cas_key=self._writer, lines=self.lines, first_time=first, last_time=last, head=self._previous
        )


def verify_audit_log(lines: Iterable[bytes], *, cas_key: str | None, head: str | None = None) -> VerifiedLog:
    """Verify a log from its first line to its last.

    Args:
        lines: Its lines, each with its newline.
        cas_key: The key hash that its CAS must have; None: any.
        head: The hash of a line that it must have, as an earlier verification has shown it; None: none.

    Raises:
        AuditLogError: A line was changed, is missing, was put in or moved, or the log is another CAS's.
    """
    verifier = LogVerifier(cas_key=cas_key, head=head)
    for line in lines:
        verifier.feed(line)
    return verifier.result()


def _changed(what: str) -> AuditLogError:
    return AuditLogError(what, finding=Finding.CHANGED)


def _parse(line: bytes, number: int) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("time"), int) or not line.endswith(b"\n"):
        raise _changed(f"line {number}: it is no line of an audit log, or cut off")
    return record


def _first_key(record: dict[str, object]) -> tuple[Ed25519PublicKey, str]:
    """Return the signing key, and the key hash of the CAS that vouches for it."""
    try:
        public = bytes.fromhex(str(record["audit_key"]))
        spki = bytes.fromhex(str(record["cas_spki"]))
        vouching = load_der_public_key(spki)
        if not isinstance(vouching, ec.EllipticCurvePublicKey):
            raise ValueError("no EC key")
        vouching.verify(bytes.fromhex(str(record["cas_signature"])), KEY_DOMAIN + public, ec.ECDSA(SHA256()))
        return Ed25519PublicKey.from_public_bytes(public), key_hash(spki)
    except (InvalidSignature, ValueError, KeyError, TypeError):
        if record.get("seq") not in (None, 1):
            raise AuditLogError(
                "line 1: it is not the first of the log: lines are missing at its beginning",
                finding=Finding.MISSING_AT_THE_BEGINNING,
            ) from None
        raise _changed("line 1: no CAS key vouches for the key that signs the log") from None
