"""Fuzz the parsers of evidence and collateral: ``make fuzz``, or ``python -m tests.fuzz_evidence --seconds=600``.

Genuine documents are changed at random (bits, bytes, cuts, insertions, splices, extreme numbers) and parsed. A parser
gives a value or refuses with ``UntrustedDataError``; anything else, or a document that takes long, is a finding: its
file is named, and the run fails.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate

from sconify.attestation import cbor, der
from sconify.attestation.collateral import AmdCollateral, IntelCollateral, parse_certificate, parse_crl
from sconify.attestation.intel import verify_origin
from sconify.attestation.pck import PlatformCertificate
from sconify.attestation.quote import Quote
from sconify.attestation.ratls import RaTlsCertificate
from sconify.attestation.sgx import SgxEvidence
from sconify.attestation.simulated import SimulatedEvidence
from sconify.attestation.snp import certified_chip, verify_report
from sconify.attestation.snp_report import SnpReport
from sconify.attestation.verify import verify_evidence
from sconify.attestation.vm import VmEvidence
from sconify.errors import SconifyError, UntrustedDataError
from sconify.las.tsm import vek_certificate
from sconify.program.launch import LaunchManifest, runtime_path, sconified_binary
from sconify.program.measure import measure_binary
from tests import attestation_vectors, ratls_certificate
from tests.amd_pki import NOW, AmdPki
from tests.intel_pki import IntelPki, new_key, sgx_body, td_body
from tests.unit.attestation.test_vm import evidence
from tests.unit.las.test_tsm import VCEK, table

SLOW = 2.0
"""Seconds of processor time for one document from which on it is a finding."""


@dataclass(frozen=True)
class Format:
    """A format: its parser, and genuine documents to begin with."""

    parse: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]


def _quotes() -> list[bytes]:
    pki = IntelPki()
    made = [pki.quote(body) for body in (sgx_body(), td_body(), td_body(mrservicetd=bytes(48)))]
    return made + [attestation_vectors.intel(name).raw for name in attestation_vectors.names("intel")]


def _reports() -> list[bytes]:
    made = [AmdPki(product=name).report(version=version) for name in ("Milan", "Genoa") for version in (2, 3, 5)]
    return made + [attestation_vectors.snp(name).raw for name in attestation_vectors.names("snp")]


def _certificates() -> list[bytes]:
    pki = IntelPki()
    made = ratls_certificate.certificate(new_key(), lambda data: pki.quote(sgx_body(report_data=data)))
    known = ["gramine-cert", "intel-sgxsdk-cert"] if attestation_vectors.VECTORS is not None else []
    return [made, *(attestation_vectors.ratls(name) for name in known)]


def _collateral() -> list[bytes]:
    pki = IntelPki()
    return [json.dumps(pki.collateral_document(tee)).encode() for tee in ("sgx", "tdx")]


def _evidence() -> list[bytes]:
    return [json.dumps(evidence(kind)).encode() for kind in ("sgx", "tdx", "snp")]


def _parse_evidence(data: bytes) -> None:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return
    for parse in (SgxEvidence.parse, VmEvidence.parse_tdx, VmEvidence.parse_snp, SimulatedEvidence.parse):
        try:
            parse(document)
        except UntrustedDataError:
            continue
    verify_evidence(document, expected_report_data=bytes(64))


def _amd() -> list[bytes]:
    pki = AmdPki()
    return [
        pki.vek().public_bytes(Encoding.DER),
        pki.vek("VLEK").public_bytes(Encoding.DER),
        pki.crl(),
        pki.chain_pem(),
    ]


def _parse_amd(data: bytes) -> None:
    parsers: list[Callable[[bytes], object]] = [
        lambda data: certified_chip(parse_certificate(data, "certificate")),
        lambda data: PlatformCertificate.parse(parse_certificate(data, "certificate")),
        lambda data: parse_crl(data, "list"),
        lambda data: AmdCollateral.parse(data, crl=None),
        vek_certificate,
    ]
    for parse in parsers:
        try:
            parse(data)
        except UntrustedDataError:
            continue


def _binaries() -> list[bytes]:
    manifest = LaunchManifest.for_runtime(
        runtime_path(), program="/app", cas_key="0" * 64, variables={"SCONE_HEAP": "1G"}
    )
    whole = sconified_binary(runtime_path(), manifest)
    # The code between the headers says nothing: without it a round takes far less time.
    start = int.from_bytes(whole[0x28:0x30], "little")
    return [whole[:0x28] + (64).to_bytes(8, "little") + whole[0x30:64] + whole[start:], whole[: 1 << 16]]


_INTEL, _AMD = IntelPki(), AmdPki()


@cache
def _genuine() -> tuple[Quote, SnpReport, AmdCollateral, Certificate]:
    return Quote.parse(_INTEL.quote(sgx_body())), SnpReport.parse(_AMD.report()), _AMD.collateral(), _AMD.vek()


def _verify_chain(data: bytes) -> None:
    """Verify a quote and a report with this certificate in the place of each of their chains."""
    certificate = parse_certificate(data, "certificate")
    quote, report, collateral, genuine = _genuine()
    for chain in ((certificate, *quote.chain[1:]), (quote.chain[0], certificate, quote.chain[2])):
        try:
            verify_origin(replace(quote, chain=chain), test_root=_INTEL.root)
        except UntrustedDataError:
            continue
    foreign = replace(collateral, intermediate=certificate)
    for vek, above in ((certificate, collateral), (genuine, foreign)):
        try:
            verify_report(report, vek, above, at=NOW, test_root=_AMD.ark)
        except UntrustedDataError:
            continue


def _chain() -> list[bytes]:
    certificates = (_INTEL.pck, _INTEL.ca, _AMD.vek(), _AMD.vek("VLEK"), _AMD.ask)
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]


FORMATS = {
    "quote": Format(Quote.parse, _quotes),
    "report": Format(SnpReport.parse, _reports),
    "ratls": Format(RaTlsCertificate.parse, _certificates),
    "cbor": Format(cbor.decode, lambda: [ratls_certificate.claims_for(new_key())]),
    "der": Format(lambda data: der.parse(data).children(), lambda: [ratls_certificate.spki(new_key())]),
    "collateral": Format(IntelCollateral.parse, _collateral),
    "evidence": Format(_parse_evidence, _evidence),
    "amd": Format(_parse_amd, lambda: [*_amd(), table((VCEK.bytes, b"certificate"))]),
    "chain": Format(_verify_chain, _chain),
    "binary": Format(lambda data: measure_binary(io.BytesIO(data), environment={"SCONE_HEAP": "1M"}), _binaries),
}

_INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutate(seed: bytes, other: bytes, rng: random.Random) -> bytes:
    """Return a document that differs from a seed in a few places."""
    data = bytearray(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else rng.randrange(min(len(data), 700) + 1)
        match rng.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + rng.choice((1, 2, 4, 64, len(data)))]
            case 3:
                data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 64)))
            case 4:
                start = rng.randrange(len(other) + 1)
                data[at : at + rng.choice((0, 16, 256))] = other[start : start + rng.choice((16, 256, 4096))]
            case 5:
                size = rng.choice((1, 2, 4))
                value = rng.choice(_INTERESTING) & ((1 << 8 * size) - 1)
                data[at : at + size] = value.to_bytes(size, rng.choice(("little", "big")))
            case 6:
                data[at:at] = data[at : at + rng.choice((1, 32, 1024))]
    return bytes(data)


def fuzz(name: str, seconds: float, seed: int) -> tuple[str, int, str | None]:
    """Fuzz one format for a time; returns its name, the number of documents, and a finding, if there is one."""
    found = FORMATS[name]
    seeds = list(found.seeds())
    rng = random.Random(seed)
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        data = mutate(rng.choice(seeds), rng.choice(seeds), rng)
        begin = time.process_time()
        finding = None
        try:
            found.parse(data)
        except SconifyError as error:
            if not isinstance(error, UntrustedDataError):
                finding = f"{type(error).__name__}: {error.what}"
        except BaseException:
            finding = traceback.format_exc()
        if time.process_time() - begin > SLOW:
            finding = f"took {time.process_time() - begin:.1f} s"
        if finding is not None:
            with tempfile.NamedTemporaryFile(prefix=f"fuzz-{name}-", delete=False) as file:
                file.write(data)
            return name, count, f"{file.name}: {finding}"
        count += 1
    return name, count, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="for each format; all run at once")
    parser.add_argument("--seed", type=int, default=time.time_ns(), help="to repeat a run")
    parser.add_argument("formats", nargs="*", default=list(FORMATS), help=f"of {', '.join(FORMATS)}")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    failed = False
    with ProcessPoolExecutor(max_workers=len(options.formats)) as pool:
        runs = [pool.submit(fuzz, name, options.seconds, options.seed) for name in options.formats]
        for run in runs:
            name, count, finding = run.result()
            print(
                f"{name:11} {count:9} documents  {'no finding' if finding is None else 'FINDING: ' + finding}",
                flush=True,
            )
            failed = failed or finding is not None
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
