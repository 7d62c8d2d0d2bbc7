from __future__ import annotations

import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sconify import __version__
from sconify.attestation.verify import verify_evidence
from sconify.errors import ServiceError, UntrustedDataError
from sconify.las.request import LasAddress, request_evidence, request_info
from sconify.las.server import LasServer
from sconify.las.simulated import SimulatedProvider

DATA, MEASUREMENT = bytes(range(64)), bytes(range(32))


class BrokenProvider:
    kind = "broken"
    measures_callers = False

    def evidence(self, *, report_data: bytes, measurement: bytes) -> Mapping[str, Any]:
        raise ServiceError("the device is gone")


@pytest.fixture
def las() -> Iterator[LasAddress]:
    server = LasServer([SimulatedProvider()])
    port = server.listen_tcp("127.0.0.1", 0)
    server.start()
    yield LasAddress("127.0.0.1", port, None)
    server.stop()


def test_evidence_verifies_and_binds_what_was_asked(las: LasAddress) -> None:
    evidence = request_evidence(las, report_data=DATA, measurement=MEASUREMENT)
    assert verify_evidence(evidence, expected_report_data=DATA).measurement == MEASUREMENT
    with pytest.raises(UntrustedDataError):
        verify_evidence(evidence, expected_report_data=bytes(64))


def test_info(las: LasAddress) -> None:
    assert request_info(las) == {"kinds": ["simulated"], "version": __version__}


def test_one_connection_takes_several_requests_in_one_block(las: LasAddress) -> None:
    with socket.create_connection((las.host, las.port), timeout=10) as connection:
        connection.sendall(b'{"op": "info"}\n{"op": "info"}\n{"op": ')
        lines = connection.makefile("rb")
        assert json.loads(lines.readline())["kinds"] == ["simulated"]
        assert json.loads(lines.readline())["kinds"] == ["simulated"]
        connection.sendall(b'"info"}\n')
        assert json.loads(lines.readline())["kinds"] == ["simulated"]


def test_ipv6() -> None:
    server = LasServer([SimulatedProvider()])
    port = server.listen_tcp("::1", 0)
    server.start()
    try:
        assert request_info(LasAddress.parse(f"[::1]:{port}"))["kinds"] == ["simulated"]
    finally:
        server.stop()


def test_unix_socket_logs_who_asks_and_is_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "las.sock"
    server = LasServer([SimulatedProvider()])
    server.listen_unix(path)
    server.start()
    assert path.stat().st_mode & 0o777 == 0o666
    request_evidence(LasAddress.parse(f"unix:{path}"), report_data=DATA, measurement=MEASUREMENT)
    server.stop()
    assert f"pid {os.getpid()} uid {os.getuid()}: simulated evidence for measurement {MEASUREMENT.hex()}" in caplog.text
    assert not path.exists()


def test_stale_unix_socket_is_replaced_a_served_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "las.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    first, second = LasServer([SimulatedProvider()]), LasServer([SimulatedProvider()])
    first.listen_unix(path)
    first.start()
    try:
        with pytest.raises(ServiceError, match="already in use") as caught:
            second.listen_unix(path)
        assert "--socket" in str(caught.value.remedy)
    finally:
        first.stop()


def test_file_in_the_place_of_a_socket_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "las.sock"
    path.write_text("precious")
    with pytest.raises(ServiceError):
        LasServer([SimulatedProvider()]).listen_unix(path)
    assert path.read_text() == "precious"


def test_taken_port_is_named(las: LasAddress) -> None:
    with pytest.raises(ServiceError, match=f"127.0.0.1:{las.port}: address already in use"):
        LasServer([SimulatedProvider()]).listen_tcp("127.0.0.1", las.port)


def test_failing_provider_is_an_error_of_the_request() -> None:
    server = LasServer([BrokenProvider()])
    port = server.listen_tcp("127.0.0.1", 0)
    server.start()
    try:
        with pytest.raises(ServiceError, match="refused: no evidence: the device is gone"):
            request_evidence(LasAddress("127.0.0.1", port, None), report_data=DATA, measurement=MEASUREMENT)
    finally:
        server.stop()


def test_nobody_there_is_said_with_a_remedy(tmp_path: Path) -> None:
    for address in (LasAddress("127.0.0.1", 1, None), LasAddress.parse(f"unix:{tmp_path / 'none'}")):
        with pytest.raises(ServiceError, match="can't be reached") as caught:
            request_info(address)
        assert "sconify las serve" in str(caught.value.remedy)


def answering(content: bytes) -> Callable[[socket.socket], None]:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(content)

    return serve


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no LAS"),
        (b"garbage\n", "no LAS"),
        (b"[]\n", "no LAS"),
        (b"[" * 60_000 + b"\n", "no LAS"),
        (b"x" * 200_000, "no LAS"),
        (b"{}\n", "without evidence"),
        (b'{"evidence": "text"}\n', "without evidence"),
        (b'{"error": "a\\u001b[2Jb"}\n', r"a\?\[2Jb"),
    ],
)
def test_wrong_answers_are_refused(content: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=answering(content), args=[listener], daemon=True).start()
        address = LasAddress("127.0.0.1", listener.getsockname()[1], None)
        with pytest.raises(ServiceError, match=message):
            request_evidence(address, report_data=DATA, measurement=MEASUREMENT)


def test_slow_las_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = LasAddress("127.0.0.1", listener.getsockname()[1], None)
        with pytest.raises(ServiceError, match=r"did not answer within 0\.2 s"):
            request_info(address, timeout=0.2)
