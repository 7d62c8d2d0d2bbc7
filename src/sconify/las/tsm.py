"""Reports of a confidential VM through Linux configfs-tsm (Documentation/ABI/testing/configfs-tsm-report).

A report is a directory: what is to be bound is written to ``inblob``, the report is read from ``outblob``, and
``generation`` counts the writes, so that one sees when somebody else has written in between.
"""

from __future__ import annotations

import errno
import os
import secrets
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from sconify.errors import ServiceError

REPORTS = Path("/sys/kernel/config/tsm/report")
KINDS = {"tdx_guest": "tdx", "sev_guest": "snp"}
"""The kind of evidence by the name of the kernel's provider."""

_MAX_BLOB = 32 * 1024  # TSM_REPORT_OUTBLOB_MAX
_VEK_ENTRIES = (uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"), uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"))
_ENTRY_SIZE = 24


class Directory(Protocol):
    """The directory of the kernel; what it refuses is an ``OSError``."""

    def make(self, name: str) -> None:
        """Make a report."""

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Write an attribute of a report as a whole."""

    def read(self, name: str, attribute: str) -> bytes:
        """Read an attribute of a report as a whole."""

    def remove(self, name: str) -> None:
        """Remove a report."""


class ConfigfsDirectory:
    """The real directory."""

    def __init__(self, path: Path = REPORTS) -> None:
        self._path = path

    def make(self, name: str) -> None:
        """Make a report."""
        (self._path / name).mkdir(mode=0o700)

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Write an attribute of a report as a whole: in one call, for each one is a write to the kernel."""
        descriptor = os.open(self._path / name / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            written = os.write(descriptor, data)
        finally:
            os.close(descriptor)
        if written != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def read(self, name: str, attribute: str) -> bytes:
        """Read an attribute of a report as a whole, as far as the kernel's limit allows."""
        with (self._path / name / attribute).open("rb") as opened:
            return opened.read(_MAX_BLOB + 1)

    def remove(self, name: str) -> None:
        """Remove a report."""
        (self._path / name).rmdir()


@dataclass(frozen=True)
class TsmReport:
    """A report of this VM.

    Attributes:
        kind: ``tdx`` or ``snp``.
        report: The quote, or the SNP report.
        certificate: The certificate of the key that signed an SNP report, in DER, if the host gave it; else empty.
    """

    kind: str
    report: bytes
    certificate: bytes


class Tsm:
    """Asks the kernel for reports.

    Args:
        directory: Where; None: the kernel's.
    """

    def __init__(self, directory: Directory | None = None) -> None:
        self._directory = directory or ConfigfsDirectory()

    def kind(self) -> str | None:
        """Return the kind of evidence that this VM can give, or None: it is no confidential one."""
        name = _fresh_name()
        try:
            self._directory.make(name)
        except OSError:
            return None
        try:
            return KINDS.get(self._provider(name))
        except OSError:
            return None
        finally:
            self._remove(name)

    def report(self, inblob: bytes) -> TsmReport:
        """Return a report that binds 64 bytes.

        Raises:
            ServiceError: The kernel gives none, or somebody else wrote to this one.
        """
        name = _fresh_name()
        try:
            self._directory.make(name)
        except OSError as error:
            raise _failed("make a report", error) from None
        try:
            return self._report(name, inblob)
        except OSError as error:
            raise _failed("give a report", error) from None
        finally:
            self._remove(name)

    def _report(self, name: str, inblob: bytes) -> TsmReport:
        provider = self._provider(name)
        if provider not in KINDS:
            raise ServiceError(f"the kernel's report is by {provider!r}, expected one of: {', '.join(KINDS)}")
        before = self._generation(name)
        self._directory.write(name, "inblob", inblob)
        report = self._directory.read(name, "outblob")
        auxiliary = self._directory.read(name, "auxblob") if provider == "sev_guest" else b""
        if self._generation(name) != before + 1:
            raise ServiceError("somebody else has written to the kernel's report of this request")
        if not report or len(report) > _MAX_BLOB:
            raise ServiceError(f"the kernel's report has {len(report)} bytes, expected 1 to {_MAX_BLOB}")
        return TsmReport(KINDS[provider], report, vek_certificate(auxiliary))

    def _provider(self, name: str) -> str:
        return self._directory.read(name, "provider").decode("ascii", "replace").strip()

    def _generation(self, name: str) -> int:
        text = self._directory.read(name, "generation").strip()
        if not text.isdigit():
            raise ServiceError("the kernel's report has no generation")
        return int(text)

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            self._directory.remove(name)


def vek_certificate(table: bytes) -> bytes:
    """Return the VCEK's or VLEK's certificate of a host's certificate table (GHCB specification); empty: it has none.

    The table is the host's: what it has is no more than a hint, and what is malformed in it is no hint.
    """
    for offset in range(0, len(table) - _ENTRY_SIZE + 1, _ENTRY_SIZE):
        entry = table[offset : offset + _ENTRY_SIZE]
        if not any(entry):
            break
        start, size = int.from_bytes(entry[16:20], "little"), int.from_bytes(entry[20:24], "little")
        # Hosts write the number of the format as it is spelled; some as Microsoft orders its bytes.
        names = (uuid.UUID(bytes=entry[:16]), uuid.UUID(bytes_le=entry[:16]))
        if any(name in _VEK_ENTRIES for name in names) and start + size <= len(table):
            return table[start : start + size]
    return b""


def _fresh_name() -> str:
    return f"sconify-{secrets.token_hex(8)}"


def _failed(what: str, error: OSError) -> ServiceError:
    why = {
        errno.EFBIG: "it is too large",
        errno.EINVAL: "what was written does not fit",
        errno.ENOENT: "there is no configfs-tsm: this is no confidential VM, or its kernel is older than 6.7",
        errno.EACCES: "only root may",
        errno.EPERM: "only root may",
    }.get(error.errno or 0, os.strerror(error.errno) if error.errno else str(error))
    return ServiceError(f"the kernel does not {what}: {why}", remedy="run the LAS as root in a confidential VM")
