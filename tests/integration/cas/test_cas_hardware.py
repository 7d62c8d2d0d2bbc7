"""A CAS in a stand-in for a confidential VM shows evidence of its hardware; a client verifies it and pins the key."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding

from sconify.attestation.judge import Mode
from sconify.cas.attest import connect
from sconify.cas.attested import CasAddress
from sconify.cas.client_config import ClientConfig
from sconify.cas.self_evidence import MEASUREMENT, SelfEvidence
from sconify.cas.server import Address, CasServer
from sconify.cas.service import Cas
from sconify.cli.cas import cas as cas_command
from sconify.errors import SconifyError, ServiceError, UntrustedDataError
from sconify.las.choice import vm_provider
from sconify.las.tsm import Tsm
from tests.cas_server import session_text
from tests.hardware import AMD, INTEL, SNP, TDX, collateral_files
from tests.intel_pki import td_body
from tests.tsm import KernelTsm

KERNELS: dict[str, Callable[[], KernelTsm]] = {
    "tdx": lambda: KernelTsm("tdx_guest", lambda bound: INTEL.quote(td_body(report_data=bound))),
    "snp": lambda: KernelTsm("sev_guest", lambda bound: AMD.report(report_data=bound)),
}
VMS: dict[str, dict[str, Any]] = {"tdx": TDX, "snp": SNP}


@contextmanager
def cas_in_vm(state: Path, kernel: KernelTsm, *, mode: Mode = Mode.PRODUCTION) -> Iterator[CasAddress]:
    service = Cas(state, mode=mode, hardware=vm_provider("auto", tsm=Tsm(kernel)))
    here = [Address(host="127.0.0.1", port=0)]
    try:
        with CasServer(service, client_addresses=here, enclave_addresses=here) as server:
            yield CasAddress("127.0.0.1", server.client_addresses[0].port)
    finally:
        service.close()


@pytest.fixture
def attest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Returns what ``sconify cas attest`` prints."""
    monkeypatch.setenv("SCONE_CLI_CONFIG", str(tmp_path / "config.json"))
    roots = tmp_path / "roots.pem"
    roots.write_bytes(INTEL.root_pem + AMD.ark.public_bytes(Encoding.PEM))
    files = collateral_files(tmp_path)

    def run(address: CasAddress, *options: str, roots_too: bool = True) -> str:
        arguments = [*(f"--collateral={file}" for file in files if roots_too)]
        if roots_too:
            arguments.append(f"--test-root={roots}")
        done = CliRunner().invoke(cas_command, ["attest", str(address), "--no-fetch", *arguments, *options])
        if isinstance(done.exception, SconifyError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done.output

    return run


def policy(directory: Path, kind: str, **changes: str) -> str:
    file = directory / "cas-policy.yml"
    factor = {"mrenclave": "any", kind: {**VMS[kind], **changes}}
    service = {"name": "cas", "command": "sconify", "attestation": factor}
    file.write_text(json.dumps({"name": "cas", "version": "0.3", "services": [service]}))
    return f"--policy={file}"


DEBUG = "--only_for_testing-debug"  # a test's root is none of a manufacturer


@pytest.mark.parametrize("kind", ["tdx", "snp"])
def test_its_evidence_is_verified_and_its_key_is_pinned(attest: Callable[..., str], tmp_path: Path, kind: str) -> None:
    with cas_in_vm(tmp_path / "state", KERNELS[kind]()) as address:
        printed = attest(address, policy(tmp_path, kind), DEBUG)
        assert "is trustworthy" in printed
        assert f"It runs {MEASUREMENT.hex()} ({kind} evidence, production mode)" in printed
        config = ClientConfig.default()
        known = config.attested(address)
        assert known is not None
        assert known.evidence_kind == kind
        # From now on its key counts: no policy and no collateral is needed to use it.
        text = session_text("app", tolerate="[]")
        assert len(connect(address, config=config).create_session(text)) == 64
    with cas_in_vm(tmp_path / "another", KERNELS[kind]()) as other:
        config.record(replace(known, address=other), replace=True)
        with pytest.raises(UntrustedDataError, match="key"):
            connect(other, config=config).create_session(text)


@pytest.mark.parametrize("kind", ["tdx", "snp"])
def test_another_vm_is_refused(attest: Callable[..., str], tmp_path: Path, kind: str) -> None:
    changed = {"tdx": {"mrtd": "99" * 48}, "snp": {"measurement": "99" * 48}}[kind]
    with cas_in_vm(tmp_path / "state", KERNELS[kind]()) as address:
        with pytest.raises(UntrustedDataError, match="not accepted") as caught:
            attest(address, policy(tmp_path, kind, **changed), DEBUG)
        assert "99" * 48 in str(caught.value.__cause__)


def test_which_vm_must_be_said_or_the_key_be_known(attest: Callable[..., str], tmp_path: Path) -> None:
    with cas_in_vm(tmp_path / "state", KERNELS["tdx"]()) as address:
        with pytest.raises(UntrustedDataError) as caught:
            attest(address, DEBUG)
        assert "which VMs may run a CAS is not said" in str(caught.value.__cause__)
        assert "--policy" in str(caught.value.remedy)
        key = attest(address, policy(tmp_path, "tdx"), DEBUG).split()[-1]
        assert "is trustworthy" in attest(address, DEBUG, "-c", key)


def test_a_root_of_a_test_needs_consent_and_an_unknown_one_is_refused(
    attest: Callable[..., str], tmp_path: Path
) -> None:
    with cas_in_vm(tmp_path / "state", KERNELS["tdx"]()) as address:
        with pytest.raises(UntrustedDataError, match="of a test's root"):
            attest(address, policy(tmp_path, "tdx"))
        with pytest.raises(UntrustedDataError, match="its evidence is not valid") as caught:
            attest(address, policy(tmp_path, "tdx"), DEBUG, roots_too=False)
        assert "check root" in str(caught.value.__cause__)


def test_evidence_of_another_cas_s_key_is_refused(attest: Callable[..., str], tmp_path: Path) -> None:
    """Who holds a VM of the right kind elsewhere can relay its evidence, but not its key."""
    kernel = KERNELS["tdx"]()
    with cas_in_vm(tmp_path / "victim", kernel):
        relayed: list[bytes] = []

        def relay(bound: bytes) -> bytes:
            relayed.append(bound)
            return INTEL.quote(td_body(report_data=bytes(64)))

        with (
            cas_in_vm(tmp_path / "liar", KernelTsm("tdx_guest", relay)) as address,
            pytest.raises(ServiceError, match="binds something else"),
        ):
            attest(address, policy(tmp_path, "tdx"), DEBUG, "--retries=0")
        assert relayed


def test_the_debug_mode_of_a_cas_on_hardware_is_no_better(attest: Callable[..., str], tmp_path: Path) -> None:
    with (
        cas_in_vm(tmp_path / "state", KERNELS["tdx"](), mode=Mode.DEBUG) as address,
        pytest.raises(UntrustedDataError, match="debug mode, so its owner"),
    ):
        attest(address, policy(tmp_path, "tdx"))


def test_many_who_ask_at_once_do_not_hold_up_the_others(tmp_path: Path) -> None:
    entered, leave = threading.Semaphore(0), threading.Event()

    def slow(bound: bytes) -> bytes:
        entered.release()
        leave.wait(20)
        return INTEL.quote(td_body(report_data=bound))

    service = Cas(tmp_path / "state", mode=Mode.DEBUG)
    evidence = SelfEvidence(
        service.key, mode=Mode.DEBUG, hardware=vm_provider("tdx", tsm=Tsm(KernelTsm("tdx_guest", slow)))
    )
    threads = [threading.Thread(target=evidence.give, args=[bytes(32)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert entered.acquire(timeout=20)
    with pytest.raises(ServiceError, match="at once"):
        evidence.give(bytes(32))
    leave.set()
    for thread in threads:
        thread.join()
    assert evidence.give(bytes(32))["kind"] == "tdx"
    service.close()
