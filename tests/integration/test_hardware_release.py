"""Evidence of hardware end to end: the real runtime, a LAS in a stand-in for a confidential VM, and a real CAS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cas_server import Client, RunningCas, running_cas, serve_command, serve_environment
from tests.hardware import AMD, INTEL, SNP, TDX, collateral_files
from tests.intel_pki import td_body
from tests.measuring_las import measuring_las
from tests.protected_program import ProtectedProgram, protected_program
from tests.tsm import KernelTsm


@dataclass
class Data:
    """A CAS that trusts the test roots, one that does not, a confidential VM of each kind, and a program."""

    trusting: RunningCas
    other: RunningCas
    programs: dict[str, ProtectedProgram]
    las: dict[str, str]
    kernels: dict[str, KernelTsm]
    clients: dict[str, Client]

    def upload(
        self, name: str, factor: dict[str, Any], *, cas: str = "trusting", tolerate: str = "simulated-platform"
    ) -> None:
        program = self.programs[cas]
        factor = {"mrenclave": program.measurement, **factor}
        answer = self.clients[cas].upload(
            f'name: {name}\nversion: "0.3"\n'
            + program.service(argument="0", attestation=json.dumps(factor))
            + f"security: {{attestation: {{tolerate: [{tolerate}]}}}}\n"
        )
        assert answer.status == 201, answer

    def run(self, name: str, las: str, *, cas: str = "trusting") -> subprocess.CompletedProcess[str]:
        port = {"trusting": self.trusting, "other": self.other}[cas].enclave_port
        return self.programs[cas].run(name, cas_port=port, las=self.las[las])

    def last_refusal(self, cas: str = "trusting") -> dict[str, Any]:
        events = {"trusting": self.trusting, "other": self.other}[cas].events()
        return [event for event in events if event["event"] == "service refused"][-1]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Data]:
    directory = tmp_path_factory.mktemp("hardware")
    roots = directory / "roots.pem"
    roots.write_bytes(INTEL.root_pem + AMD.ark.public_bytes(Encoding.PEM))
    kernels = {
        "tdx": KernelTsm("tdx_guest", lambda bound: INTEL.quote(td_body(report_data=bound))),
        "snp": KernelTsm("sev_guest", lambda bound: AMD.report(report_data=bound)),
    }
    with ExitStack() as stack:
        trusting = stack.enter_context(running_cas(directory / "trusting", f"--test-root={roots}", "--no-fetch"))
        other = stack.enter_context(running_cas(directory / "other", "--no-fetch"))
        las = {kind: stack.enter_context(measuring_las(directory / kind, kernel)) for kind, kernel in kernels.items()}
        programs, clients = {}, {}
        for name, cas in {"trusting": trusting, "other": other}.items():
            (directory / f"program-{name}").mkdir()
            programs[name] = protected_program(directory / f"program-{name}", cas_key=cas.key)
            clients[name] = Client.make(directory / f"client-{name}", cas.client_port)
        imported = subprocess.run(
            [
                *serve_command()[:-1],
                *("collateral", "import", f"--state-dir={trusting.state_dir}", f"--test-root={roots}"),
                *map(str, collateral_files(directory)),
            ],
            env=serve_environment(),
            check=False,
            capture_output=True,
            text=True,
        )
        assert imported.returncode == 0, imported.stderr
        assert len(imported.stdout.splitlines()) == 4
        yield Data(trusting, other, programs, las, kernels, clients)


@pytest.mark.parametrize(("kind", "factor"), [("tdx", {"tdx": TDX}), ("snp", {"snp": SNP})])
def test_secrets_for_a_program_in_a_confidential_vm(data: Data, kind: str, factor: dict[str, Any]) -> None:
    data.upload(f"good-{kind}", factor)
    done = data.run(f"good-{kind}", kind)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["program", "0", "hello"]
    attested = [event for event in data.trusting.events() if event["event"] == "service attested"][-1]
    assert attested["evidence"] == kind
    assert attested["measurement"] == data.programs["trusting"].measurement
    assert attested["tolerated"] == "simulated-platform"  # a test root is no better
    assert len(attested["quote"]) == 64


@pytest.mark.parametrize(("kind", "factor"), [("tdx", {"tdx": TDX}), ("snp", {"snp": SNP})])
def test_a_cas_that_does_not_trust_the_root(data: Data, kind: str, factor: dict[str, Any]) -> None:
    data.upload(f"foreign-{kind}", factor, cas="other")
    done = data.run(f"foreign-{kind}", kind, cas="other")
    assert done.returncode in (113, 115), done.stderr
    assert done.stdout == ""
    refusal = data.last_refusal("other")
    assert refusal["evidence"] == kind
    # Of AMD's certificates there are none; whether a root is trusted is not even asked.
    assert ("check root" if kind == "tdx" else "there is no collateral") in refusal["reason"]


@pytest.mark.parametrize(
    ("factor", "tolerate", "reason"),
    [
        ({"tdx": {**TDX, "rtmr1": "99" * 48}}, "simulated-platform", "check rtmr1"),
        ({"tdx": {**TDX, "mrconfigid": "99" * 48}}, "simulated-platform", "check mrconfigid"),
        ({"tdx": TDX}, "debug-mode", "check platform: got tdx evidence of a test root"),
        ({"tdx": TDX, "mrenclave": "cd" * 32}, "simulated-platform", "check measurement"),
        ({}, "simulated-platform", "check attestation factor: got tdx evidence, expected evidence for sgx"),
        ({"snp": SNP}, "simulated-platform", "check attestation factor: got tdx evidence, expected evidence for snp"),
    ],
)
def test_policies_that_want_something_else(data: Data, factor: dict[str, Any], tolerate: str, reason: str) -> None:
    name = f"wants-{abs(hash((json.dumps(factor), tolerate)))}"
    data.upload(name, factor, tolerate=tolerate)
    done = data.run(name, "tdx")
    assert done.returncode == 115, done.stderr
    assert reason in data.last_refusal()["reason"]
    assert reason in done.stderr  # a CAS in debug mode says why


def test_one_service_on_any_platform(data: Data) -> None:
    measured = data.programs["trusting"].measurement
    program = data.programs["trusting"]
    factors = [
        {"mrenclave": measured},
        {"mrenclave": measured, "tdx": TDX},
        {"mrenclave": measured, "snp": SNP},
    ]
    answer = data.clients["trusting"].upload(
        'name: anywhere\nversion: "0.3"\n'
        + program.service(argument="0", attestation=json.dumps(factors))
        + "security: {attestation: {tolerate: [simulated-platform]}}\n"
    )
    assert answer.status == 201, answer
    for kind in ("tdx", "snp"):
        assert data.run("anywhere", kind).returncode == 0


def test_simulated_evidence_is_never_hardware(data: Data) -> None:
    data.upload("simulated", {"tdx": TDX})
    enclave = data.trusting.enclave("simulated/web")
    nonce = enclave.challenge()
    evidence = enclave.evidence(nonce, measurement=data.programs["trusting"].measurement)
    answer = enclave.attest(nonce=nonce, evidence=evidence)
    assert answer.status == 403
    assert "check attestation factor: got simulated evidence, expected evidence for tdx" in answer.message
    for kind in ("tdx", "snp", "sgx"):
        nonce = enclave.challenge()
        answer = enclave.attest(nonce=nonce, evidence={**enclave.evidence(nonce), "kind": kind})
        assert answer.status == 403
        assert f"{kind} evidence: member" in answer.message


def test_collateral_of_a_running_cas_is_shown(data: Data) -> None:
    done = subprocess.run(
        [*serve_command()[:-1], "collateral", "show", f"--state-dir={data.trusting.state_dir}"],
        env=serve_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert "intel/tdx/b0c06f000000/platform  valid until" in done.stdout
    assert "TCB evaluation 20" in done.stdout
    assert "amd/milan/crl  valid until" in done.stdout
    assert "amd/milan/chain/vcek" in done.stdout
    assert "amd/milan/vcek/" in done.stdout
