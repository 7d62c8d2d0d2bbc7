"""Linux's configfs-tsm in memory, with the behaviour of its ABI: Documentation/ABI/testing/configfs-tsm-report."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class _Report:
    generation: int = 0
    inblob: bytes | None = None
    read_generation: int = -1
    outblob: bytes = b""
    auxblob: bytes = b""


@dataclass
class KernelTsm:
    """The directory of reports of a VM.

    Attributes:
        provider: What the kernel's driver calls itself: ``tdx_guest`` or ``sev_guest``.
        hardware: Makes a report that binds 64 bytes.
        auxiliary: The host's certificate table.
        interfere: Called between the write and the read of each report, as another process would come between.
        refused: The error of every ``mkdir``, if any.
    """

    provider: str
    hardware: Callable[[bytes], bytes]
    auxiliary: bytes = b""
    interfere: Callable[[KernelTsm, str], None] = lambda _tsm, _name: None
    refused: int = 0
    reports: dict[str, _Report] = field(default_factory=dict)
    requests: list[bytes] = field(default_factory=list)

    def make(self, name: str) -> None:
        if self.refused:
            raise _error(self.refused)
        if name in self.reports:
            raise _error(errno.EEXIST)
        self.reports[name] = _Report()

    def write(self, name: str, attribute: str, data: bytes) -> None:
        report = self._report(name)
        if attribute not in ("inblob", "privlevel"):
            raise _error(errno.EACCES)
        if attribute == "inblob":
            if not 1 <= len(data) <= 64:
                raise _error(errno.EINVAL)
            report.inblob = data
        report.generation += 1
        if attribute == "inblob":
            self.interfere(self, name)

    def read(self, name: str, attribute: str) -> bytes:
        report = self._report(name)
        if attribute == "provider":
            return f"{self.provider}\n".encode()
        if attribute == "generation":
            return f"{report.generation}\n".encode()
        if attribute == "auxblob" and self.provider == "tdx_guest":
            raise _error(errno.ENOENT)
        if attribute not in ("outblob", "auxblob"):
            raise _error(errno.EACCES)  # inblob can be written only
        if report.inblob is None:
            raise _error(errno.EINVAL)
        if report.read_generation != report.generation:
            self.requests.append(report.inblob)
            blob = self.hardware(report.inblob.ljust(64, b"\0"))
            if len(blob) > 32 * 1024:
                raise _error(errno.EFBIG)
            report.outblob, report.auxblob = blob, self.auxiliary
            report.read_generation = report.generation
        return report.outblob if attribute == "outblob" else report.auxblob

    def remove(self, name: str) -> None:
        self._report(name)
        del self.reports[name]

    def _report(self, name: str) -> _Report:
        if name not in self.reports:
            raise _error(errno.ENOENT)
        return self.reports[name]


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
