"""Evidence of hardware that must not get a configuration: each lie has its reason in the audit log, none outside."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from joserfc.jwk import ECKey
from werkzeug.test import Client as WsgiClient

from sconify.attestation import sgx, simulated, vm
from sconify.attestation.authorities import Authorities
from sconify.attestation.collateral import AmdCollateral, IntelCollateral
from sconify.attestation.evidence import las_report_data, service_report_data
from sconify.attestation.intel import GenuineQuote
from sconify.attestation.judge import Mode
from sconify.attestation.snp_report import SnpReport
from sconify.cas.http import PEER_KEY
from sconify.cas.service import Cas
from sconify.policy.keyhash import spki_der
from tests.amd_pki import AmdPki, Tcb
from tests.cas_server import decode, encode
from tests.intel_pki import IntelPki, Level, State, new_key, sgx_body, td_body

INTEL, AMD = IntelPki(), AmdPki()
LAS_KEY = Ed25519PrivateKey.generate()
MEASUREMENT = b"\x11" * 32
CONFIG_ID = "hardware/web"
FACTORS = [
    {"mrenclave": MEASUREMENT.hex()},
    {
        "mrenclave": MEASUREMENT.hex(),
        "tdx": {"mrtd": "31" * 48} | {f"rtmr{number}": f"{0x40 + number:x}" * 48 for number in range(3)},
    },
    {
        "mrenclave": MEASUREMENT.hex(),
        "snp": {
            "measurement": "51" * 48,
            "minimum_tcb": {"milan": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219}},
        },
    },
]


@dataclass
class Source:
    """Gives what a test says; everything that it gives is to be verified."""

    state: State
    change: Callable[[dict[str, str]], dict[str, str]] = lambda document: document
    vek: x509.Certificate | None = None
    chain: AmdCollateral | None = None

    def intel(self, genuine: GenuineQuote, *, at: int) -> IntelCollateral:
        return IntelCollateral.parse(json.dumps(self.change(INTEL.collateral_document(genuine.quote.tee, self.state))))

    def amd(self, report: SnpReport, *, certificate: bytes, at: int) -> tuple[x509.Certificate, AmdCollateral]:
        crl = AMD.crl(issued=at - 60, expires=at + 3600)
        return self.vek or AMD.vek(ends=at + 3600), self.chain or AMD.collateral(crl=crl)


@dataclass
class Attempt:
    """A request that differs from an honest one in one thing."""

    kind: str
    reason: str
    body: Callable[[bytes], bytes] | None = None
    """Makes the report that the hardware signs."""
    quote: Callable[[bytes], bytes] = lambda quote: quote
    """Changes what the hardware gave."""
    members: dict[str, Any] = field(default_factory=dict)
    """Changes members of the evidence."""
    state: dict[str, Any] = field(default_factory=dict)
    document: Callable[[dict[str, str]], dict[str, str]] = lambda document: document
    source: dict[str, Any] = field(default_factory=dict)
    evidence: Callable[[bytes], dict[str, Any]] | None = None


@dataclass
class Production:
    """A CAS in production mode that has the tests' roots among its own: made by reaching into it."""

    cas: Cas
    directory: Path
    now: int

    def attest(self, attempt: Attempt, *, times: int = 1) -> list[tuple[int, str, str]]:
        """Make a request; for each time that it is sent, status, answer, and the reason in the audit log."""
        state = State(**{"issued": self.now - 60, "expires": self.now + 3600, **attempt.state})
        source = Source(state, attempt.document, **attempt.source)
        release = self.cas.enclave_api._release
        release._authorities = Authorities(source, test_roots=[INTEL.root, AMD.ark])
        enclave = WsgiClient(self.cas.enclave_api)
        nonce = json.loads(enclave.post("/v1/challenge", json={"config_id": CONFIG_ID}).text)["nonce"]
        key = ECKey.generate_key("P-256").as_dict(private=False)
        point = b"\x04" + decode(str(key["x"])) + decode(str(key["y"]))
        data = service_report_data(nonce=decode(nonce), public_key=point, config_id=CONFIG_ID)
        body = {
            "config_id": CONFIG_ID,
            "nonce": nonce,
            "public_key": {name: key[name] for name in ("kty", "crv", "x", "y")},
            "evidence": made(attempt, data),
        }
        found = []
        for _ in range(times):
            answer = enclave.post("/v1/attest", json=body)
            event = json.loads((self.directory / "audit.jsonl").read_text().splitlines()[-1])
            assert event["event"] == "service refused"
            found.append((answer.status_code, answer.text, str(event["reason"])))
        return found


def made(attempt: Attempt, data: bytes) -> dict[str, Any]:
    if attempt.evidence is not None:
        return attempt.evidence(data)
    kind = attempt.kind
    if kind == "sgx":
        body = attempt.body or (lambda bound: sgx_body(mrenclave=MEASUREMENT, report_data=bound))
        return {**sgx.encode(attempt.quote(INTEL.quote(body(data)))), **attempt.members}
    bound = las_report_data(kind=kind, las_key=LAS_KEY.public_key().public_bytes_raw(), report_data=data)
    if kind == "tdx":
        body = attempt.body or (lambda bound: td_body(report_data=bound))
        hardware = INTEL.quote(body(bound))
    else:
        hardware = (attempt.body or (lambda bound: AMD.report(report_data=bound)))(bound)
    issued = vm.issue(
        kind=kind,
        quote=attempt.quote(hardware),
        certificate=b"",
        las_key=LAS_KEY,
        measurement=MEASUREMENT,
        report_data=data,
    )
    return {**issued, **attempt.members}


def flipped(offset: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :]


def edited(name: str, old: str, new: str) -> Callable[[dict[str, str]], dict[str, str]]:
    def change(document: dict[str, str]) -> dict[str, str]:
        assert old in document[name]
        return {**document, name: document[name].replace(old, new)}

    return change


def of(kind: str, **arguments: Any) -> Callable[[bytes], bytes]:
    """A report of a kind with fields changed."""
    makers: dict[str, Callable[..., bytes]] = {"sgx": sgx_body, "tdx": td_body, "snp": AMD.report}
    return lambda bound: makers[kind](report_data=bound, **arguments)


def simulated_as(kind: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda data: {**simulated.issue(measurement=MEASUREMENT, report_data=data, issued_at=0), "kind": kind}


OTHER = IntelPki()
STRANGER = AmdPki(number=1)
OLD = Level(status="OutOfDate", advisories=("INTEL-SA-00657",))

ATTEMPTS = {
    # each field of a quote in turn
    "sgx version": Attempt("sgx", "quote: got version 2", quote=flipped(0)),
    "sgx key type": Attempt("sgx", "check attestation key: got type 3", quote=flipped(2)),
    "sgx TEE type": Attempt("sgx", "TEE type", quote=flipped(4)),
    "sgx vendor": Attempt("sgx", "check QE vendor", quote=flipped(12)),
    "sgx user data": Attempt("sgx", "check quote signature", quote=flipped(28)),
    "sgx CPUSVN": Attempt("sgx", "check quote signature", quote=flipped(48)),
    "sgx MRENCLAVE": Attempt("sgx", "check quote signature", quote=flipped(48 + 64)),
    "sgx MRSIGNER": Attempt("sgx", "check quote signature", quote=flipped(48 + 128)),
    "sgx ISVPRODID": Attempt("sgx", "check quote signature", quote=flipped(48 + 256)),
    "sgx ISVSVN": Attempt("sgx", "check quote signature", quote=flipped(48 + 258)),
    "sgx report data": Attempt("sgx", "check quote signature", quote=flipped(48 + 320)),
    "sgx signature": Attempt("sgx", "check quote signature", quote=flipped(436)),
    "sgx attestation key": Attempt("sgx", "check attestation key", quote=flipped(500)),
    "sgx QE report": Attempt("sgx", "check QE report signature", quote=flipped(564)),
    "sgx QE signature": Attempt("sgx", "check QE report signature", quote=flipped(948)),
    "sgx authentication data": Attempt("sgx", "check attestation key", quote=flipped(1014)),
    "tdx MRTD": Attempt("tdx", "check quote signature", quote=flipped(48 + 136)),
    "tdx RTMR": Attempt("tdx", "check quote signature", quote=flipped(48 + 328)),
    "tdx attributes": Attempt("tdx", "check debug", quote=flipped(48 + 120)),
    "snp policy": Attempt("snp", "check report signature", quote=flipped(0x008)),
    "snp measurement": Attempt("snp", "check report signature", quote=flipped(0x090)),
    "snp host data": Attempt("snp", "check report signature", quote=flipped(0x0C0)),
    "snp chip": Attempt("snp", "check report signature", quote=flipped(0x1A0)),
    "snp signature": Attempt("snp", "check report signature", quote=flipped(0x2A0)),
    # size
    "truncated quote": Attempt("sgx", "quote: it ends within its", quote=lambda quote: quote[:-1]),
    "truncated report": Attempt("snp", "got 1183 bytes", quote=lambda report: report[:-1]),
    "over-long quote": Attempt("sgx", "at most 32768 bytes", quote=lambda quote: quote + bytes(32768)),
    "trailing bytes": Attempt("sgx", "bytes stand behind it", quote=lambda quote: quote + b"\1"),
    # what is signed, but not good enough
    "debug enclave": Attempt("sgx", "check debug", body=of("sgx", flags=0b111, mrenclave=MEASUREMENT)),
    "debug trust domain": Attempt("tdx", "check debug", body=of("tdx", attributes=1 << 28 | 1)),
    "debug guest": Attempt("snp", "check debug", body=of("snp", policy=0xB_0000)),
    "no SEPT_VE_DISABLE": Attempt("tdx", "SEPT_VE_DISABLE", body=of("tdx", attributes=0)),
    "service TD": Attempt("tdx", "service TD", body=of("tdx", mrservicetd=b"\1" * 48)),
    # collateral
    "revoked PCK": Attempt("sgx", "the PCK certificate is revoked", state={"pck_revoked": True}),
    "revoked TCB": Attempt("sgx", "got Revoked", state={"levels": (Level(status="Revoked"),)}),
    "wrong CA's list": Attempt("sgx", "is not signed by its issuer", state={"wrong_crl_issuer": True}),
    "wrong QE identity": Attempt("sgx", "check QE identity", state={"qe_signer": bytes(32)}),
    "other platform's": Attempt("sgx", "check collateral: got TCB information for", state={"fmspc": bytes(6)}),
    "no level": Attempt("sgx", "no level for this platform", state={"levels": (Level(svn=6),)}),
    "expired": Attempt("sgx", "and not at", state={"issued": 1_700_000_000, "expires": 1_700_000_001}),
    "edited TCB info": Attempt(
        "sgx",
        "Signature is invalid for tcb_info",
        state={"levels": (OLD,)},
        document=edited("tcb_info", "OutOfDate", "UpToDate"),
    ),
    # roots
    "sample root": Attempt(
        "sgx", "check root", evidence=lambda data: sgx.encode(OTHER.quote(sgx_body(report_data=data)))
    ),
    "stranger's report": Attempt("snp", "check root", source={"vek": STRANGER.vek(), "chain": STRANGER.collateral()}),
    "stranger's key": Attempt("snp", "check chain", source={"vek": STRANGER.vek()}),
    "older firmware's key": Attempt("snp", "check reported TCB", body=of("snp", tcbs={"reported": Tcb(snp=23)})),
    # binding
    "simulated as sgx": Attempt("sgx", "sgx evidence: member", evidence=simulated_as("sgx")),
    "simulated as tdx": Attempt("tdx", "tdx evidence: member", evidence=simulated_as("tdx")),
    "simulated as snp": Attempt("snp", "snp evidence: member", evidence=simulated_as("snp")),
    "simulated": Attempt("simulated", "check platform: got simulated evidence", evidence=simulated_as("simulated")),
    "tdx as snp": Attempt("tdx", "snp evidence", members={"kind": "snp"}),
    "another LAS": Attempt("tdx", "check LAS key", members={"las_key": encode(bytes(32))}),
    "another program": Attempt("tdx", "check LAS signature", members={"measurement": "22" * 32}),
    "another request": Attempt(
        "sgx",
        "check report data",
        evidence=lambda _: sgx.encode(INTEL.quote(sgx_body(mrenclave=MEASUREMENT, report_data=b"o" * 64))),
    ),
    # the root is only a test's after all: in production that is never enough, whatever the policy tolerates
    "test root, sgx": Attempt("sgx", "check platform: got sgx evidence of a test root"),
    "test root, tdx": Attempt("tdx", "check platform: got tdx evidence of a test root"),
    "test root, snp": Attempt("snp", "check platform: got snp evidence of a test root"),
}


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    directory = tmp_path_factory.mktemp("production")
    cas = Cas(directory, mode=Mode.PRODUCTION)
    session = (
        'name: hardware\nversion: "0.3"\nservices:\n  - name: web\n    command: program\n'
        f"    attestation: {json.dumps(FACTORS)}\n"
        "security: {attestation: {tolerate: [simulated-platform, debug-mode]}}\n"
    )
    client = {PEER_KEY: spki_der(new_key().public_key())}
    answer = WsgiClient(cas.client_api).post("/v1/sessions", data=session, environ_overrides=client)
    assert answer.status_code == 201, answer.text
    yield Production(cas, directory, int(time.time()))
    cas.close()


@pytest.mark.parametrize("name", ATTEMPTS)
def test_refused(production: Production, name: str) -> None:
    ((status, answer, reason),) = production.attest(ATTEMPTS[name])
    assert ATTEMPTS[name].reason in reason
    assert status == 403
    # Word for word the same, whatever the reason is.
    assert {name: value for name, value in json.loads(answer).items() if name != "version"} == {
        "msg": ["this CAS does not accept the attestation"],
        "remedy": "ask its operator: the reason is in its audit log",
    }


def test_a_replayed_request(production: Production) -> None:
    first, second = production.attest(ATTEMPTS["test root, tdx"], times=2)
    assert first[:2] == second[:2]
    assert "check platform" in first[2]
    assert "check nonce: it was used before" in second[2]
