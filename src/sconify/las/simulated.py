"""The simulated platform as a provider of a LAS: for machines without confidential hardware, and for tests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from sconify.attestation import simulated


class SimulatedProvider:
    """Gives simulated evidence, which anybody can forge: it proves nothing about hardware."""

    kind = simulated.KIND
    measures_callers = False

    def evidence(self, *, report_data: bytes, measurement: bytes) -> Mapping[str, Any]:
        """Return simulated evidence for whatever measurement the caller claims."""
        return simulated.issue(measurement=measurement, report_data=report_data, issued_at=int(time.time()))
