"""A container in a stand-in for a confidential VM: namespaces of its own, the LAS's socket mounted into it."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import tarfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sconify.cas.bridges import bridge_addresses
from tests.cas_server import Client, RunningCas, running_cas, serve_command, serve_environment
from tests.containers import run
from tests.intel_pki import IntelPki, State, td_body
from tests.measuring_las import measuring_las
from tests.protected_program import protected_program
from tests.tsm import KernelTsm

pytestmark = pytest.mark.docker

PKI = IntelPki()
TDX = {"mrtd": "31" * 48} | {f"rtmr{number}": f"{0x40 + number:x}" * 48 for number in range(3)}


@pytest.fixture
def empty_image() -> Iterator[str]:
    """An image with nothing in it but the directory into which the program is mounted."""
    name = f"sconify-test/empty:{uuid.uuid4().hex[:12]}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        directory = tarfile.TarInfo("app")
        directory.type, directory.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(directory)
    subprocess.run(["docker", "import", "-", name], input=archive.getvalue(), check=True, capture_output=True)
    yield name
    run("docker", "image", "rm", "--force", name, check=False)


@pytest.fixture
def address() -> str:
    """An address that containers on Docker's bridge reach, with a free port."""
    host = bridge_addresses()[0]
    with socket.create_server((host, 0)) as probe:
        return f"{host}:{probe.getsockname()[1]}"


@pytest.fixture
def cas(tmp_path: Path, address: str) -> Iterator[RunningCas]:
    """A CAS that trusts the tests' root, and has the collateral of the VM's platform."""
    root = tmp_path / "root.pem"
    root.write_bytes(PKI.root_pem)
    now = int(time.time())
    document = PKI.collateral_document("tdx", State(issued=now - 60, expires=now + 30 * 86400))
    (tmp_path / "collateral.json").write_text(json.dumps(document))
    with running_cas(tmp_path / "cas", f"--test-root={root}", "--no-fetch", f"--enclave-listen={address}") as server:
        collateral = ("collateral", "import", f"--state-dir={server.state_dir}", f"--test-root={root}")
        command = [*serve_command()[:-1], *collateral, str(tmp_path / "collateral.json")]
        subprocess.run(command, env=serve_environment(), check=True, capture_output=True)
        yield server


def test_a_container_is_measured_by_the_las_of_its_vm(
    tmp_path: Path, empty_image: str, cas: RunningCas, address: str
) -> None:
    program = protected_program(tmp_path, cas_key=cas.key)
    tmp_path.chmod(0o755)  # the container's user is somebody else
    client = Client.make(tmp_path / "client", cas.client_port)
    factor = json.dumps({"mrenclave": program.measurement, "tdx": TDX})
    answer = client.upload(
        'name: contained\nversion: "0.3"\n'
        + program.service(argument="7", attestation=factor)
        + "security: {attestation: {tolerate: [simulated-platform]}}\n"
    )
    assert answer.status == 201, answer
    kernel = KernelTsm("tdx_guest", lambda bound: PKI.quote(td_body(report_data=bound)))
    with measuring_las(tmp_path / "las", kernel) as las:
        done = run(
            *("docker", "run", "--rm", "--user=12345:12345", "--read-only", "--cap-drop=ALL"),
            *(
                f"--volume={tmp_path}:{tmp_path}:ro",
                f"--env=SCONE_LAS_ADDR={las}",
                "--env=SCONE_CONFIG_ID=contained/web",
            ),
            *(f"--env=SCONE_CAS_ADDR={address}", f"--entrypoint={program.binary}", empty_image),
            check=False,
        )
    assert done.returncode == 7, done.stderr
    assert done.stdout.splitlines() == ["program", "7", "hello"]
    attested = [event for event in cas.events() if event["event"] == "service attested"][-1]
    assert (attested["evidence"], attested["measurement"]) == ("tdx", program.measurement)
