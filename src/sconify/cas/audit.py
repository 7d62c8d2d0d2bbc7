"""The audit log: what happened, one JSON object a line, without secrets. Appended, never changed (docs/protocol.md).

Each line has the hash of the one before and a signature, so that a line that is changed, left out, put in or moved is
noticed by who has the log alone. The first line ties the signing key to the CAS key. That lines are missing at the end
is noticed by the CAS, which remembers how far the log went (``service``).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from sconify.cas.keys import CasKey
from sconify.errors import BugError, ServiceError
from sconify.policy.canonical import canonical_json

DOMAIN: Final = b"sconify audit v1\0"
KEY_DOMAIN: Final = b"sconify audit key v1\0"
FIRST: Final = "0" * 64
"""What stands for the hash of the line before the first one."""

_MAX_LINE = 64 << 10


class AuditLog:
    """Appends events to a file; several processes may share it.

    Args:
        path: The file; made with mode 0600 if it does not exist.
        signing_key: Signs the lines.
        cas_key: Vouches for ``signing_key`` in the first line.

    Raises:
        ServiceError: It can't be opened, or its last line was not written by this CAS.
    """

    def __init__(self, path: Path, *, signing_key: Ed25519PrivateKey, cas_key: CasKey) -> None:
        self._path = path
        self._key = signing_key
        self._lock = threading.Lock()
        self._size = -1
        self._sequence, self._previous = 0, FIRST
        self.generation = 0
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ServiceError(f"the audit log {path} can't be opened: {error.strerror}") from None
        public = signing_key.public_key().public_bytes_raw()
        first: dict[str, str | int | list[str]] = {
            "audit_key": public.hex(),
            "cas_key": cas_key.key_hash,
            "cas_spki": cas_key.spki.hex(),
            "cas_signature": cas_key.sign(KEY_DOMAIN + public).hex(),
        }
        with self._exclusive():
            if self._sequence == 0:
                self._append("audit log opened", first)

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def identity(self) -> str:
        """What tells this log from those of other replicas: the hash of its first line."""
        with self._lock:
            return hashlib.sha256(os.pread(self._descriptor, _MAX_LINE, 0).partition(b"\n")[0]).hexdigest()

    @property
    def position(self) -> int:
        """The number of the last line."""
        with self._lock:
            return self._sequence

    def record(self, event: str, **details: str | int | list[str] | None) -> int:
        """Append an event.

        Args:
            event: What happened: ``session created``, ``service attested``, ...
            details: Names and identities; nothing secret.

        Returns:
            The number of the line.

        Raises:
            ServiceError: It could not be written; what it tells of must then not happen.
        """
        with self._lock, self._exclusive():
            return self._append(event, {name: value for name, value in details.items() if value is not None})

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the file's lock, and know its last line."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            self._catch_up()
            yield
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _catch_up(self) -> None:
        """Read what another process has appended."""
        size = os.fstat(self._descriptor).st_size
        if size == self._size:
            return
        if size:
            start = max(0, size - _MAX_LINE)
            tail = os.pread(self._descriptor, size - start, start)
            self._sequence, self._previous, self.generation = self._last(tail)
        self._size = size

    def _last(self, tail: bytes) -> tuple[int, str, int]:
        """Return number, hash and generation of the last whole line; a piece behind it is what a crash has left."""
        lines = tail.split(b"\n")
        whole, piece = lines[:-1], lines[-1]
        if piece:
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - len(piece))
        if not whole:
            return 0, FIRST, 0
        line = whole[-1]
        try:
            record = json.loads(line)
            verify_line(record, self._key.public_key())
            return int(record["seq"]), hashlib.sha256(line).hexdigest(), self._newest_generation(whole)
        except (ValueError, KeyError, TypeError, InvalidSignature):
            raise ServiceError(
                f"the last line of the audit log {self._path} was not written by this CAS",
                remedy="move the file away and keep it for inspection (`sconify cas audit verify FILE`)",
            ) from None

    @staticmethod
    def _newest_generation(lines: list[bytes]) -> int:
        for line in reversed(lines):
            try:
                found = json.loads(line).get("generation")
            except ValueError:
                continue  # the first one may be cut
            if isinstance(found, int):
                return found
        return 0

    def _append(self, event: str, details: dict[str, str | int | list[str]]) -> int:
        record: dict[str, object] = {
            "seq": self._sequence + 1,
            "time": int(time.time()),
            "event": event,
            # In each line, so that the last one always tells how new the store was.
            **({"generation": self.generation} if self.generation else {}),
            **details,
            "previous": self._previous,
        }
        record["signature"] = self._key.sign(DOMAIN + canonical_json(record)).hex()
        line = json.dumps(record, ensure_ascii=True).encode()
        try:
            written = os.write(self._descriptor, line + b"\n")
        except OSError as error:
            raise ServiceError(f"the audit log can't be written: {error.strerror}") from None
        if written != len(line) + 1:
            raise ServiceError("the audit log can't be written: the disk is full")
        self._size += written
        self._sequence += 1
        self._previous = hashlib.sha256(line).hexdigest()
        if isinstance(details.get("generation"), int):
            self.generation = int(str(details["generation"]))
        return self._sequence


def verify_line(record: dict[str, object], key: Ed25519PublicKey) -> None:
    """Verify the signature of a line.

    Raises:
        InvalidSignature: It is another one's, or the line was changed.
        ValueError, KeyError, TypeError: It is no line of a log.
    """
    signed = {name: value for name, value in record.items() if name != "signature"}
    try:
        message = canonical_json(signed)
    except BugError:
        raise ValueError("the line holds what no line does") from None
    key.verify(bytes.fromhex(str(record["signature"])), DOMAIN + message)
