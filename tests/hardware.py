"""Stand-ins for hardware: the manufacturers' certificates, and what VMs of them are measured to be."""

from __future__ import annotations

import json
import time
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from tests.amd_pki import AmdPki
from tests.intel_pki import IntelPki, State

NOW = int(time.time())
INTEL = IntelPki()
AMD = AmdPki()
RTMRS = {f"rtmr{number}": f"{0x40 + number:x}" * 48 for number in range(3)}
TDX = {"mrtd": "31" * 48, **RTMRS}
SNP = {
    "measurement": "51" * 48,
    "minimum_tcb": {"milan": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}},
}


def collateral_files(directory: Path) -> list[Path]:
    state = State(issued=NOW - 3600, expires=NOW + 30 * 86400)
    files = {
        "intel.json": json.dumps(INTEL.collateral_document("tdx", state)).encode(),
        "amd.pem": AMD.chain_pem(),
        "amd.crl": AMD.crl(issued=NOW - 3600, expires=NOW + 30 * 86400),
        "vcek.der": AMD.vek(begins=NOW - 3600, ends=NOW + 365 * 86400).public_bytes(Encoding.DER),
    }
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return [directory / name for name in files]
