"""Confidential VMs (TDX, SEV-SNP) as providers of a LAS that runs inside them.

Hardware measures the VM and with it this LAS; the LAS measures the program (``sconify.las.peer``) and signs what it
measured with a key that exists in its memory only, and that each quote binds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sconify.attestation import vm
from sconify.attestation.evidence import las_report_data
from sconify.attestation.quote import Quote
from sconify.attestation.snp_report import SnpReport
from sconify.errors import ServiceError, UntrustedDataError
from sconify.las.tsm import Tsm


class VmProvider:
    """Gives evidence of programs in this VM.

    Args:
        kind: ``tdx`` or ``snp``.
        tsm: Where the hardware's reports come from.
    """

    measures_callers = True

    def __init__(self, kind: str, tsm: Tsm) -> None:
        self.kind = kind
        self._tsm = tsm
        self._key = Ed25519PrivateKey.generate()

    def evidence(self, *, report_data: bytes, measurement: bytes) -> Mapping[str, Any]:
        """Return evidence for a program that was measured.

        Raises:
            ServiceError: The kernel gives no report, one of another kind, or one that binds something else.
        """
        bound = las_report_data(
            kind=self.kind, las_key=self._key.public_key().public_bytes_raw(), report_data=report_data
        )
        found = self._tsm.report(bound)
        if found.kind != self.kind:
            raise ServiceError(f"the kernel gave {found.kind} evidence, expected {self.kind}")
        try:
            if self.kind == vm.TDX:
                quote = Quote.parse(found.report)
                report, given = quote.encoding, quote.body.report_data
            else:
                report, given = found.report, SnpReport.parse(found.report).report_data
        except UntrustedDataError as error:
            raise ServiceError(f"the kernel's report can't be used: {error.what}", remedy=error.remedy) from None
        if given != bound:
            raise ServiceError("the kernel's report binds something else than was asked")
        certificate = found.certificate if len(found.certificate) <= vm.MAX_CERTIFICATE else b""
        return vm.issue(
            kind=self.kind,
            quote=report,
            certificate=certificate,
            las_key=self._key,
            measurement=measurement,
            report_data=report_data,
        )
