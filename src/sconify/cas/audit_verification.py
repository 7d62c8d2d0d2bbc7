"""Verify an audit log without the CAS that wrote it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from sconify.cas.audit import FIRST, KEY_DOMAIN, verify_line
from sconify.errors import UntrustedDataError
from sconify.policy.keyhash import key_hash


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


def verify_audit_log(lines: Iterable[bytes], *, cas_key: str | None, head: str | None = None) -> VerifiedLog:
    """Verify a log from its first line to its last.

    Args:
        lines: Its lines, each with its newline.
        cas_key: The key hash that its CAS must have; None: any.
        head: The hash of a line that it must have, as an earlier verification has shown it; None: none.

    Raises:
        UntrustedDataError: A line was changed, is missing, was put in or moved, or the log is another CAS's.
    """
    key: Ed25519PublicKey | None = None
    writer, previous, times, number = "", FIRST, [0, 0], 0
    seen_head = head is None
    for number, line in enumerate(lines, start=1):
        record = _parse(line, number)
        if key is None:
            key, writer = _first_key(record)
            if cas_key is not None and cas_key != writer:
                raise UntrustedDataError(f"line 1: the log is that of the CAS {writer}, expected {cas_key}")
        try:
            verify_line(record, key)
        except (InvalidSignature, ValueError, KeyError, TypeError):
            raise UntrustedDataError(f"line {number}: its signature is not valid: it was changed") from None
        if record.get("seq") != number or record.get("previous") != previous:
            raise UntrustedDataError(f"line {number}: it does not follow the line before: lines are missing or moved")
        time = record.get("time")
        assert isinstance(time, int)
        times = [times[0] or time, time]
        previous = hashlib.sha256(line.removesuffix(b"\n")).hexdigest()
        seen_head = seen_head or previous == head
    if number == 0:
        raise UntrustedDataError("the log is empty")
    if not seen_head:
        raise UntrustedDataError(
            f"the log has no line with hash {head}: lines are missing at its end, or it is another"
        )
    return VerifiedLog(cas_key=writer, lines=number, first_time=times[0], last_time=times[1], head=previous)


def _parse(line: bytes, number: int) -> dict[str, object]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("time"), int) or not line.endswith(b"\n"):
        raise UntrustedDataError(f"line {number}: it is no line of an audit log, or cut off")
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
        raise UntrustedDataError("line 1: no CAS key vouches for the key that signs the log") from None
