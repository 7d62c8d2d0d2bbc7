"""A LAS that measures callers: the real runtime is what it is; nobody else gets evidence, whatever he tries."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sconify.attestation.authorities import Authorities
from sconify.attestation.evidence import VerifiedEvidence, service_report_data
from sconify.attestation.verify import verify_evidence
from sconify.cas.collateral import Collateral
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.errors import ServiceError
from sconify.las.request import LasAddress, request_evidence, request_info
from sconify.las.server import LasServer
from sconify.las.tsm import Tsm
from sconify.las.vm import VmProvider
from sconify.program.launch import LaunchManifest, measurement, runtime_path, sconified_binary
from tests.cas_server import decode
from tests.intel_pki import NOW, IntelPki, td_body
from tests.runtime_peers import CONFIG_ID, Cas, key_hash
from tests.tsm import KernelTsm

PKI = IntelPki()
DATA = b"d" * 64


@dataclass
class Vm:
    """A trust domain with a LAS, and a sconified binary in it."""

    las: LasAddress
    tcp: LasAddress
    kernel: KernelTsm
    binary: Path
    measurement: str
    cas: Cas


@contextmanager
def serving(directory: Path, kernel: KernelTsm) -> Iterator[tuple[LasAddress, LasAddress]]:
    server = LasServer([VmProvider("tdx", Tsm(kernel))])
    server.listen_unix(directory / "las.sock")
    port = server.listen_tcp("127.0.0.1", 0)
    server.start()
    try:
        yield LasAddress.parse(f"unix:{directory / 'las.sock'}"), LasAddress.parse(f"127.0.0.1:{port}")
    finally:
        server.stop()


@pytest.fixture
def vm(tmp_path: Path) -> Iterator[Vm]:
    kernel = KernelTsm("tdx_guest", lambda bound: PKI.quote(td_body(report_data=bound)))
    cas = Cas(tmp_path)
    manifest = LaunchManifest.for_runtime(
        runtime_path(), program="/app", cas_key=key_hash(cas.key), variables={"SCONE_HEAP": "64M"}
    )
    binary = tmp_path / "sconified"
    binary.write_bytes(sconified_binary(runtime_path(), manifest))
    binary.chmod(0o755)
    with serving(tmp_path, kernel) as (unix, tcp):
        yield Vm(unix, tcp, kernel, binary, measurement(manifest), cas)


def run(vm: Vm, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """Run the binary as far as it comes; returns the attestations that it sent."""
    with vm.cas.serving() as port:
        done = subprocess.run(
            [vm.binary],
            env={
                "SCONE_CONFIG_ID": CONFIG_ID,
                "SCONE_CAS_ADDR": f"127.0.0.1:{port}",
                "SCONE_LAS_ADDR": str(vm.las),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    return done, [body for path, _, body in vm.cas.requests if path == "/v1/attest"]


def verified(vm: Vm, request: dict[str, Any]) -> VerifiedEvidence:
    key = request["public_key"]
    expected = service_report_data(
        nonce=Cas.nonce, public_key=b"\x04" + decode(key["x"]) + decode(key["y"]), config_id=CONFIG_ID
    )
    collateral = Collateral(MemoryDocuments(), test_roots=[PKI.root])
    collateral.add_intel(json.dumps(PKI.collateral_document("tdx")).encode())
    authorities = Authorities(collateral, test_roots=[PKI.root])
    return verify_evidence(request["evidence"], expected_report_data=expected, authorities=authorities, at=NOW)


def test_the_runtime_is_what_it_is(vm: Vm) -> None:
    _, requests = run(vm)
    evidence = verified(vm, requests[0])
    assert (evidence.kind, evidence.measurement.hex()) == ("tdx", vm.measurement)


def test_start_up_variables_are_measured(vm: Vm) -> None:
    _, requests = run(vm, SCONE_HEAP="128M")
    other = LaunchManifest.for_runtime(
        runtime_path(),
        program="/app",
        cas_key=json.loads((vm.binary.read_bytes().split(b'{"cas_key":')[-1].split(b",")[0]).decode()),
        variables={"SCONE_HEAP": "128M"},
    )
    assert verified(vm, requests[0]).measurement.hex() == measurement(other) != vm.measurement


def test_info_is_for_everybody_evidence_is_not(vm: Vm) -> None:
    assert request_info(vm.tcp)["kinds"] == ["tdx"]
    with pytest.raises(ServiceError, match="a caller over TCP can't be measured"):
        request_evidence(vm.tcp, report_data=DATA, measurement=bytes.fromhex(vm.measurement))
    with pytest.raises(ServiceError, match="the caller is no sconified program"):
        request_evidence(vm.las, report_data=DATA, measurement=bytes.fromhex(vm.measurement))
    assert vm.kernel.requests == []  # the hardware was not even asked


def attack(vm: Vm, code: str) -> dict[str, Any]:
    """Run an attacker's program, which knows ``path``, ``binary`` and ``line``; returns what the LAS told it."""
    line = json.dumps({"op": "evidence", "report_data": DATA.hex(), "measurement": vm.measurement}) + "\n"
    program = textwrap.dedent(f"""
        import os, socket, subprocess, sys, time
        path, binary, line = {str(vm.las.path)!r}, {str(vm.binary)!r}, {line!r}.encode()
        def tell(connection):
            connection.settimeout(20)
            print(connection.makefile().readline(), end="", flush=True)
    """) + textwrap.dedent(code)
    # With these, the genuine binary waits for a CAS that answers nothing while it is measured.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {
            "PATH": os.environ["PATH"],
            "SCONE_CONFIG_ID": CONFIG_ID,
            "SCONE_CAS_ADDR": f"127.0.0.1:{silent.getsockname()[1]}",
            "SCONE_LAS_ADDR": str(vm.las),
        }
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[0]) if done.stdout else {}
    assert answer, done.stderr
    return answer


KEEP_AND_EXECUTE = """
    keep = socket.socket(socket.AF_UNIX)
    keep.connect(path)
    child = os.fork()
    if child:  # this process becomes the genuine program; the child keeps the connection
        time.sleep(0.5) if {late} else None
        os.set_inheritable(keep.fileno(), {inheritable})
        os.execv(binary, [binary])
    time.sleep(0.5 if not {late} else 0)
    if {late}: time.sleep(1.0)
    keep.sendall(line)
    tell(keep)
    os.kill(os.getppid(), 9)
"""


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(
    ("inheritable", "why"),
    [(True, "it was passed on by execve"), (False, "it was handed to another process")],
)
def test_who_becomes_the_genuine_program_and_keeps_the_connection(
    vm: Vm, inheritable: bool, why: str, late: bool
) -> None:
    answer = attack(vm, KEEP_AND_EXECUTE.format(inheritable=inheritable, late=late))
    assert why in answer["error"]
    assert vm.kernel.requests == []


def test_who_has_ended(vm: Vm) -> None:
    answer = attack(
        vm,
        """
        keep = socket.socket(socket.AF_UNIX)
        here, there = socket.socketpair()
        child = os.fork()
        if not child:
            keep.connect(path)
            socket.send_fds(there, [b"x"], [keep.fileno()])
            os._exit(0)
        os.waitpid(child, 0)
        _, (descriptor,), _, _ = socket.recv_fds(here, 1, 1)
        connection = socket.socket(fileno=descriptor)
        connection.sendall(line)
        tell(connection)
        """,
    )
    assert "can't be measured" in answer["error"] or "is gone" in answer["error"]
    assert vm.kernel.requests == []


def test_another_program_that_claims_to_be_it(vm: Vm) -> None:
    answer = attack(
        vm,
        """
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(line)
        tell(connection)
        """,
    )
    assert "the caller is no sconified program" in answer["error"]


def test_a_changed_binary_is_another_one(vm: Vm) -> None:
    content = bytearray(vm.binary.read_bytes())
    at = content.rindex(b'"program":"/app"')
    content[at : at + 16] = b'"program":"/apq"'
    vm.binary.write_bytes(content)
    _, requests = run(vm)
    assert requests
    assert verified(vm, requests[0]).measurement.hex() != vm.measurement


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")
def test_a_caller_in_a_container_has_a_network_of_its_own(vm: Vm) -> None:
    """What it runs is looked at all the same: the connection is found in its own network namespace."""
    line = json.dumps({"op": "evidence", "report_data": DATA.hex(), "measurement": vm.measurement}) + "\n"
    code = f"""
import socket
connection = socket.socket(socket.AF_UNIX)
connection.connect({str(vm.las.path)!r})
connection.sendall({line!r}.encode())
print(connection.makefile().readline())
"""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "the caller is no sconified program" in done.stdout, done.stderr
