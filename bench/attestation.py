"""Measures how fast evidence is parsed, verified and judged, against ``dcap-qvl`` alone: ``make bench-attestation``.

Real quotes are taken where the attestation vectors are at hand, else those of the tests' PKIs. The whole path is what a
CAS does for each request once the collateral is in its cache. Times are those of one core (processor time), so that a
busy machine does not count; the last column is what all cores get done together by the clock.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.collateral import AmdCollateral, IntelCollateral, parse_certificate
from sconify.attestation.evidence import VerifiedEvidence
from sconify.attestation.intel import VerifiedQuote, verify_quote
from sconify.attestation.judge import Mode, weigh
from sconify.attestation.proof import PROOF
from sconify.attestation.quote import Quote, SgxReport
from sconify.attestation.snp import VerifiedReport, verify_report
from sconify.attestation.snp_report import SnpReport
from sconify.policy.session import parse_session
from tests import attestation_vectors
from tests.amd_pki import AmdPki
from tests.intel_pki import NOW, IntelPki, sgx_body, td_body

SECONDS = float(os.environ.get("BENCH_SECONDS", "3"))
TARGET_MS = 5.0
REGISTER = "cd" * 48


@dataclass(frozen=True)
class Case:
    """One kind of evidence: the whole path, and what the library does alone."""

    name: str
    path: Callable[[], object]
    library: Callable[[], object] | None


def _policy(kind: str) -> Callable[[VerifiedQuote | VerifiedReport], None]:
    registers = ", ".join(f"{name}: {REGISTER}" for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2"))
    tcb = "{bootloader: 1, tee: 0, snp: 1, microcode: 1}"
    factor = {
        "sgx": f"{{mrenclave: {'ab' * 32}}}",
        "tdx": f"{{mrenclave: {'ab' * 32}, tdx: {{{registers}}}}}",
        "snp": f"{{mrenclave: {'ab' * 32}, snp: {{measurement: {REGISTER}, minimum_tcb: {{milan: {tcb}}}}}}}",
    }[kind]
    session = parse_session(f'name: a\nversion: "0.3"\nservices: [{{name: s, command: p, attestation: {factor}}}]')

    def judge(platform: VerifiedQuote | VerifiedReport) -> None:
        measurement = bytes(32)
        if isinstance(platform, VerifiedQuote) and isinstance(platform.body, SgxReport):
            measurement = platform.body.mrenclave
        proven = VerifiedEvidence(kind=kind, measurement=measurement, debug=False, platform=platform, proof=PROOF)
        weigh(proven, factors=session.services[0].factors, security=session.security, mode=Mode.PRODUCTION)

    return judge


def _intel(name: str, raw: bytes, collateral: IntelCollateral, at: int, root: x509.Certificate | None) -> Case:
    judge = _policy(Quote.parse(raw).tee)
    policy = dcap_qvl.QuotePolicy.claims_only(at)

    def path() -> None:
        judge(verify_quote(Quote.parse(raw), collateral, at=at, test_root=root))

    def library() -> None:
        der = None if root is None else root.public_bytes(Encoding.DER)
        json.loads(dcap_qvl.QuoteVerifier(der).verify_with_policy(raw, collateral.for_library, at, policy).to_json())

    return Case(name, path, library)


def _snp(
    name: str, raw: bytes, vek: x509.Certificate, collateral: AmdCollateral, at: int, root: x509.Certificate | None
) -> Case:
    judge = _policy("snp")

    def path() -> None:
        judge(verify_report(SnpReport.parse(raw), vek, collateral, at=at, test_root=root))

    return Case(name, path, None)


def cases() -> list[Case]:
    """Every kind of evidence, real if it can be had."""
    if attestation_vectors.VECTORS is None:
        intel, amd = IntelPki(), AmdPki()
        return [
            _intel("SGX v3 (test PKI)", intel.quote(sgx_body()), intel.collateral("sgx"), NOW, intel.root),
            _intel("TDX v4 (test PKI)", intel.quote(td_body()), intel.collateral("tdx"), NOW, intel.root),
            _snp("SEV-SNP (test PKI)", amd.report(), amd.vek(), amd.collateral(), NOW, amd.ark),
        ]
    found = []
    for name, shown in (
        ("sgx_v3_config_and_swhardening", "SGX v3"),
        ("tdx_v4_uptodate", "TDX v4"),
        ("tdx_v5_td15_uptodate", "TDX v5"),
    ):
        vector = attestation_vectors.intel(name)
        found.append(_intel(shown, vector.raw, vector.collateral, vector.at, None))
    for name, shown in (
        ("milan_v3", "SEV-SNP v3 Milan"),
        ("genoa_v3", "SEV-SNP v3 Genoa"),
        ("turin_v5", "SEV-SNP v5 Turin"),
    ):
        report = attestation_vectors.snp(name)
        vek = parse_certificate(report.certificate, name)
        found.append(_snp(shown, report.raw, vek, report.collateral, report.at, None))
    return found


def measured(action: Callable[[], object], seconds: float) -> list[float]:
    """Milliseconds of each round within a time."""
    for _ in range(5):
        action()
    times, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        begin = time.thread_time()
        action()
        times.append(1000 * (time.thread_time() - begin))
    return times


def rounds(number: int) -> int:
    """How many rounds of a case one process makes within ``SECONDS``."""
    return len(measured(cases()[number].path, SECONDS))


def main() -> None:
    """Print a line for each kind of evidence; fail if one is above the target."""
    cores = len(os.sched_getaffinity(0))
    print(
        f"{'evidence':18} {'p50':>8} {'p99':>8} {'a second':>11} {'dcap-qvl':>10} {'ratio':>6} {f'{cores} cores':>11}"
    )
    late = []
    for number, case in enumerate(cases()):
        times = measured(case.path, SECONDS)
        p50, p99 = statistics.median(times), statistics.quantiles(times, n=100)[98]
        alone = statistics.median(measured(case.library, SECONDS)) if case.library is not None else None
        with ProcessPoolExecutor(cores) as pool:
            together = sum(pool.map(rounds, [number] * cores)) / SECONDS
        library = f"{alone:7.2f} ms {p50 / alone:5.1f}x" if alone else f"{'-':>10} {'-':>6}"
        print(
            f"{case.name:18} {p50:5.2f} ms {p99:5.2f} ms {1000 / statistics.mean(times):9.0f}/s "
            f"{library} {together:9.0f}/s"
        )
        if p50 > TARGET_MS:
            late.append(case.name)
    print(f"target: at most {TARGET_MS:g} ms each at p50: {'missed by ' + ', '.join(late) if late else 'met'}")
    sys.exit(1 if late else 0)


if __name__ == "__main__":
    main()
