"""Where a LAS gets evidence from: one provider for each kind of evidence that this host can give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Provider(Protocol):
    """Gives evidence of one kind."""

    @property
    def kind(self) -> str:
        """The ``kind`` of the evidence: ``simulated``, ``tdx``, ``snp``."""

    @property
    def measures_callers(self) -> bool:
        """Whether the LAS must measure who asks, for nobody else does: then only its unix sockets serve."""

    def evidence(self, *, report_data: bytes, measurement: bytes) -> Mapping[str, Any]:
        """Return evidence for a program on this host.

        Args:
            report_data: What the evidence binds, 64 bytes.
            measurement: What runs, 32 bytes: measured if the LAS measures callers, else what the caller says.

        Returns:
            The evidence, as JSON members.

        Raises:
            ServiceError: The platform gave none.
        """
