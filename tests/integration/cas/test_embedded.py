"""The embedded CAS and LAS: real processes, found, shared, restarted and stopped."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sconify.cas.attest import attest_cas, connect
from sconify.cas.attested import CasAddress
from sconify.cas.bridges import bridge_addresses
from sconify.cas.client_config import ClientConfig
from sconify.cas.embedded import embedded_status, ensure_embedded, stop_embedded
from sconify.cas.embedded_state import default_state_directory
from sconify.errors import ServiceError
from sconify.las.request import LasAddress, request_info


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    stop_embedded(tmp_path / "state")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_start_use_find_again_and_stop(state: Path, tmp_path: Path) -> None:
    first = ensure_embedded(state)
    assert first.started
    assert first.addresses == ("127.0.0.1", *bridge_addresses())
    again = ensure_embedded(state)
    assert not again.started
    assert (again.cas, again.las, again.key) == (first.cas, first.las, first.key)
    assert embedded_status(state) == again

    client = connect(
        CasAddress(first.cas_host, first.client_port),
        config=ClientConfig(tmp_path / "config.json"),
        allow_debug=True,
        expected_key=first.key,
    )
    created = client.create_session('name: kept\nversion: "0.3"\n')
    for address in first.addresses:
        assert request_info(LasAddress(address, first.las_port, None))["kinds"] == ["simulated"]
        socket.create_connection((address, first.enclave_port), timeout=5).close()

    assert stop_embedded(state)
    assert not alive(first.cas.pid)
    assert not alive(first.las.pid)
    assert not stop_embedded(state)
    assert embedded_status(state) is None

    restarted = ensure_embedded(state)
    assert restarted.started
    assert restarted.key == first.key
    assert (restarted.client_port, restarted.enclave_port, restarted.las_port) == (
        first.client_port,
        first.enclave_port,
        first.las_port,
    )
    assert client.read_session("kept").hash == created


def test_client_api_is_on_the_loopback_address_only_and_state_is_private(state: Path) -> None:
    services = ensure_embedded(state)
    for address in bridge_addresses():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, services.client_port), timeout=5)
    assert state.stat().st_mode & 0o777 == 0o700
    assert [log.stat().st_mode & 0o777 for log in state.glob("*.log")] == [0o600, 0o600]


def test_two_processes_at_once_start_one(state: Path) -> None:
    show = (
        "import sys, pathlib; from sconify.cas.embedded import ensure_embedded; "
        "services = ensure_embedded(pathlib.Path(sys.argv[1])); print(services.cas.pid, services.las.pid)"
    )
    command = [sys.executable, "-c", show, str(state)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    answers = {process.communicate(timeout=120)[0] for process in running}
    services = ensure_embedded(state)
    assert answers == {f"{services.cas.pid} {services.las.pid}\n"}


def test_several_that_start_at_once_take_different_ports(tmp_path: Path) -> None:
    states = [tmp_path / str(number) for number in range(4)]
    code = "import sys; from pathlib import Path; from sconify.cas.embedded import ensure_embedded as start; "
    code += "services = start(Path(sys.argv[1])); print(services.client_port, services.enclave_port, services.las_port)"
    starters = [
        subprocess.Popen([sys.executable, "-c", code, str(state)], stdout=subprocess.PIPE, text=True)
        for state in states
    ]
    try:
        outputs = [starter.communicate(timeout=120)[0] for starter in starters]
        assert [starter.returncode for starter in starters] == [0] * len(starters)
        ports = " ".join(outputs).split()
        assert len(set(ports)) == 3 * len(starters)
        assert all(embedded_status(state) is not None for state in states)
    finally:
        for state in states:
            stop_embedded(state)


def test_taken_ports_are_passed_over(state: Path) -> None:
    services = ensure_embedded(state)
    wanted = (services.client_port, services.enclave_port, services.las_port)
    stop_embedded(state)
    with socket.create_server(("127.0.0.1", wanted[0])), socket.create_server(("0.0.0.0", wanted[1])):
        moved = ensure_embedded(state)
    assert moved.client_port != wanted[0]
    assert moved.enclave_port != wanted[1]
    assert moved.las_port == wanted[2]
    assert moved.cas_address == f"localhost:{moved.enclave_port}"
    assert moved.las_address == f"localhost:{moved.las_port}"
    assert attest_cas(CasAddress("127.0.0.1", moved.client_port), allow_debug=True).key_sha256 == services.key


@pytest.mark.parametrize("which", ["cas", "las"])
def test_dead_service_is_replaced(state: Path, which: str) -> None:
    first = ensure_embedded(state)
    os.kill(getattr(first, which).pid, signal.SIGKILL)
    assert embedded_status(state) is None
    second = ensure_embedded(state)
    assert second.started
    assert embedded_status(state) is not None
    assert not alive(first.cas.pid)
    assert not alive(first.las.pid)


def test_hanging_service_is_replaced(state: Path) -> None:
    first = ensure_embedded(state)
    os.kill(first.las.pid, signal.SIGSTOP)
    second = ensure_embedded(state)
    assert second.started
    assert not alive(first.las.pid)


def test_stale_process_number_is_not_killed(state: Path) -> None:
    ensure_embedded(state)
    stop_embedded(state)
    with subprocess.Popen(["sleep", "60"]) as bystander:
        document = json.loads((state / "services.json").read_text())
        for name in ("cas", "las"):
            document[name]["pid"] = bystander.pid
        (state / "services.json").write_text(json.dumps(document))
        assert embedded_status(state) is None
        assert not stop_embedded(state)
        assert ensure_embedded(state).started
        assert bystander.poll() is None
        bystander.kill()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"ports": {}}', '{"pid": 1}'])
def test_damaged_state_file_means_nothing_runs(state: Path, content: str) -> None:
    state.mkdir()
    (state / "services.json").write_text(content)
    assert embedded_status(state) is None
    assert not stop_embedded(state)


def test_other_version_is_replaced(state: Path) -> None:
    first = ensure_embedded(state)
    document = json.loads((state / "services.json").read_text())
    (state / "services.json").write_text(json.dumps(document | {"version": "0.0.1"}))
    second = ensure_embedded(state)
    assert second.started
    assert not alive(first.cas.pid)


def test_failed_start_shows_the_log_and_leaves_nothing(state: Path) -> None:
    (state / "cas").mkdir(parents=True)
    (state / "cas" / "cas.sqlite").write_text("this is no database " * 100)
    with pytest.raises(ServiceError, match=r"the embedded CAS ended at once; the end of its log:\n.+") as caught:
        ensure_embedded(state)
    assert str(state / "cas.log") in str(caught.value.remedy)
    document = json.loads((state / "services.json").read_text())
    assert not alive(document["cas"]["pid"])
    assert not alive(document["las"]["pid"])


def test_killed_starter_leaves_nothing_that_is_not_found(state: Path) -> None:
    script = (
        "import sys, pathlib; from sconify.cas.embedded import ensure_embedded; "
        "ensure_embedded(pathlib.Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(state)]) as starter:
        while not (state / "services.json").exists():
            time.sleep(0.005)
        starter.kill()
    services = ensure_embedded(state)
    document = json.loads((state / "services.json").read_text())
    assert (services.cas.pid, services.las.pid) == (document["cas"]["pid"], document["las"]["pid"])
    assert _processes_with(state) == {services.cas.pid}


def _processes_with(state: Path) -> set[int]:
    """Processes whose arguments name the state directory: the CAS."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(state).encode() in path.read_bytes() and b"serve" in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.skipif(shutil.which("ip") is None, reason="needs iproute2")
def test_bridge_that_appears_later_is_listened_on(tmp_path: Path) -> None:
    """In a network of its own, so that neither this machine's bridges nor its ports matter."""
    script = """
import pathlib, subprocess, sys
from sconify.cas.embedded import ensure_embedded, stop_embedded
state = pathlib.Path(sys.argv[1])
run = lambda command: subprocess.run(command.split(), check=True)
run("ip link set lo up")
try:
    before = ensure_embedded(state)
    run("ip link add docker0 type bridge")
    run("ip addr add 198.51.100.1/24 dev docker0")
    after = ensure_embedded(state)
    assert before.addresses == ("127.0.0.1",), before
    assert after.addresses == ("127.0.0.1", "198.51.100.1"), after
    assert after.started and after.key == before.key
    assert (before.client_port, before.enclave_port, before.las_port) == (8081, 18765, 18766), before
    assert (after.client_port, after.enclave_port, after.las_port) == (8081, 18765, 18766), after
    run("ip link del docker0")
    assert not ensure_embedded(state).started
finally:
    stop_embedded(state)
"""
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", script, str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_default_state_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_state_directory() == tmp_path / "sconify" / "embedded"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_state_directory() == tmp_path / ".local" / "share" / "sconify" / "embedded"


def test_unusable_state_directory_is_a_service_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="can't be used"):
        ensure_embedded(tmp_path / "file" / "state")


def test_commands(tmp_path: Path) -> None:
    def run(command: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "sconify.cli.main", "embedded", command],
            env={**os.environ, "XDG_DATA_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    run("status", code=4)
    assert run("stop") == "not running\n"
    try:
        shown = run("start")
        assert "CAS client API: 127.0.0.1:" in shown
        assert run("status") == shown
    finally:
        assert run("stop") == "stopped\n"
    run("status", code=4)
