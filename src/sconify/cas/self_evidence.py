"""What a CAS shows of itself: evidence that binds its key and mode to a client's nonce (docs/protocol.md, section 5).

In a confidential VM the hardware measures the VM, and with it this CAS: which VMs may run a CAS is for the client to
say. Without hardware it is simulated evidence, which proves nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

import sconify
from sconify.attestation import simulated
from sconify.attestation.evidence import cas_report_data
from sconify.attestation.judge import Mode
from sconify.cas.keys import CasKey
from sconify.errors import ServiceError
from sconify.las.provider import Provider

MEASUREMENT: Final = sha256(f"sconify cas {sconify.__version__}".encode()).digest()
"""What a CAS says that it is: nobody measures it apart from its VM."""

_AT_ONCE = 4
"""Requests that may wait for the hardware: it takes one at a time, and the other threads are to serve others."""


class SelfEvidence:
    """Gives evidence of this CAS.

    Args:
        key: The CAS key.
        mode: The mode that the CAS shows.
        hardware: Gives evidence of this VM; None: there is no hardware.
    """

    def __init__(self, key: CasKey, *, mode: Mode, hardware: Provider | None) -> None:
        self._key = key
        self._mode = mode
        self._hardware = hardware
        self._waiting = threading.BoundedSemaphore(_AT_ONCE)

    @property
    def kind(self) -> str:
        """The kind of the evidence: ``tdx``, ``snp`` or ``simulated``."""
        return simulated.KIND if self._hardware is None else self._hardware.kind

    def give(self, nonce: bytes) -> Mapping[str, Any]:
        """Return evidence for a client.

        Args:
            nonce: The client's, 32 bytes.

        Raises:
            ServiceError: The platform gives none, or too many ask at once.
        """
        report_data = cas_report_data(nonce=nonce, spki=self._key.spki, mode=self._mode)
        if self._hardware is None:
            return simulated.issue(measurement=MEASUREMENT, report_data=report_data, issued_at=int(time.time()))
        if not self._waiting.acquire(blocking=False):
            raise ServiceError("too many clients ask for evidence at once", remedy="try again")
        try:
            return self._hardware.evidence(report_data=report_data, measurement=MEASUREMENT)
        finally:
            self._waiting.release()
