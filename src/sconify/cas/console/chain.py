"""The state of the audit log's chain, verified further with each look at it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sconify.cas.audit_verification import LogVerifier, VerifiedLog
from sconify.errors import UntrustedDataError

_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class ChainState:
    """What is known of an audit log.

    Attributes:
        verified: What was verified, from the first line on; None: nothing yet.
        complete: Whether that is the whole log.
        failure: Why it could not be verified further; None: it could.
    """

    verified: VerifiedLog | None
    complete: bool
    failure: str | None


class Chain:
    """Verifies the audit log of this CAS; what was verified once is not read again.

    Args:
        path: The log.
        cas_key: The key hash of this CAS.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, path: Path, *, cas_key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._verifier = LogVerifier(cas_key=cas_key)
        self._offset = 0
        self._failure: str | None = None

    def state(self) -> ChainState:
        """Verify what was written since the last call, for two seconds at most."""
        with self._lock:
            complete = self._failure is None and self._verify()
            verified = self._verifier.result() if self._verifier.lines else None
            return ChainState(verified=verified, complete=complete, failure=self._failure)

    def _verify(self) -> bool:
        until = self._clock() + _SECONDS
        with self._path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._failure = f"line {self._verifier.lines}: it was there, and is missing now"
                return False
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # it is being written
                if self._clock() > until:
                    return False
                try:
                    self._verifier.feed(line)
                except UntrustedDataError as error:
                    self._failure = error.what
                    return False
                self._offset += len(line)
        return True
