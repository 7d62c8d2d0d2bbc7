"""What this host offers for confidential computing, as its kernel shows it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

from sconify.las.tsm import REPORTS, ConfigfsDirectory, Tsm


@dataclass(frozen=True)
class Fact:
    """Something that is there or not, and what it is for."""

    name: str
    present: bool
    purpose: str


@dataclass(frozen=True)
class PlatformInfo:
    """What a host offers.

    Attributes:
        kernel: The kernel's release.
        evidence: The kinds of evidence that a LAS on this host can give.
        facts: What that is concluded from.
    """

    kernel: str
    evidence: tuple[str, ...]
    facts: tuple[Fact, ...]


def platform_info(root: Path = Path("/")) -> PlatformInfo:
    """Look at a host.

    Args:
        root: Its root directory.
    """
    flags = _cpu_flags(root)
    reports = root / REPORTS.relative_to("/")
    kind = Tsm(ConfigfsDirectory(reports)).kind()
    facts = (
        Fact("CPU flag tdx_guest", "tdx_guest" in flags, "this is a trust domain (TDX)"),
        Fact("CPU flag sev_snp", "sev_snp" in flags, "this host or guest knows SEV-SNP"),
        Fact("CPU flag sgx", "sgx" in flags, "enclaves (SGX) can run"),
        Fact("CPU flag sgx_lc", "sgx_lc" in flags, "enclaves can be launched without Intel's launch enclave"),
        Fact(str(REPORTS), reports.is_dir(), "the kernel gives reports of this VM (Linux 6.7 and later)"),
        *(
            Fact(f"/{name}", (root / name).exists(), purpose)
            for name, purpose in (
                ("dev/tdx_guest", "reports of a trust domain, for this host only"),
                ("dev/sev-guest", "reports of an SEV-SNP guest"),
                ("dev/sgx_enclave", "enclaves can be made"),
                ("dev/sgx_provision", "enclaves can give quotes by themselves"),
                ("var/run/aesmd/aesm.socket", "Intel's service gives quotes of enclaves"),
                (
                    "sys/devices/virtual/misc/tdx_guest/measurements",
                    "the guest can extend RTMRs (Linux 6.16 and later)",
                ),
            )
        ),
    )
    return PlatformInfo(platform.release(), (kind, "simulated") if kind else ("simulated",), facts)


def _cpu_flags(root: Path) -> set[str]:
    try:
        text = (root / "proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    match = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return set(match[1].split()) if match else set()
