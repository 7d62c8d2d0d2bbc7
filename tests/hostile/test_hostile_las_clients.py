"""Clients that send a LAS anything but a request: it answers with an error or closes, and stays there for others."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sconify.las.request import LasAddress, request_info
from sconify.las.server import MAX_LINE, LasServer
from sconify.las.simulated import SimulatedProvider


@pytest.fixture(scope="module")
def las() -> Iterator[LasAddress]:
    server = LasServer([SimulatedProvider()], line_timeout=1.0, max_connections=16)
    port = server.listen_tcp("127.0.0.1", 0)
    server.start()
    yield LasAddress("127.0.0.1", port, None)
    server.stop()


def connect(las: LasAddress) -> socket.socket:
    return socket.create_connection((las.host, las.port), timeout=10)


def answer_to(las: LasAddress, content: bytes) -> dict[str, object]:
    with connect(las) as connection:
        connection.sendall(content)
        answer = json.loads(connection.makefile("rb").readline())
    assert isinstance(answer, dict)
    return answer


DATA, MEASUREMENT = "ab" * 64, "cd" * 32


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"garbage",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b"{}",
        b'{"op": "other"}',
        b'{"op": "info", "more": 1}',
        b'{"op": ["info"]}',
        b'{"op": "evidence"}',
        json.dumps({"op": "evidence", "report_data": DATA}).encode(),
        json.dumps({"op": "evidence", "report_data": DATA[2:], "measurement": MEASUREMENT}).encode(),
        json.dumps({"op": "evidence", "report_data": DATA.upper(), "measurement": MEASUREMENT}).encode(),
        json.dumps({"op": "evidence", "report_data": DATA, "measurement": 7}).encode(),
        json.dumps({"op": "evidence", "report_data": DATA, "measurement": MEASUREMENT + "\n"}).encode(),
        json.dumps({"op": "evidence", "report_data": DATA, "measurement": MEASUREMENT, "kind": "snp"}).encode(),
        b"[" * (MAX_LINE - 1),
    ],
)
def test_what_is_no_request_gets_an_error(las: LasAddress, line: bytes) -> None:
    assert str(answer_to(las, line + b"\n")["error"]).startswith("not a request")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200).filter(lambda data: b"\n" not in data))
def test_random_lines_get_an_error(las: LasAddress, line: bytes) -> None:
    assert "error" in answer_to(las, line + b"\n")


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_oversized_line_is_cut_off(las: LasAddress, end: bytes) -> None:
    assert "longer than" in str(answer_to(las, b"x" * (MAX_LINE + 1) + end)["error"])


def test_endless_line_is_cut_off(las: LasAddress) -> None:
    with connect(las) as connection, pytest.raises((ConnectionResetError, BrokenPipeError)):
        connection.sendall(b"x" * 100_000_000)


def test_silent_and_dripping_connections_are_closed_in_time(las: LasAddress) -> None:
    with connect(las) as silent, connect(las) as dripping:
        started = time.monotonic()
        dripping.settimeout(0.1)
        while time.monotonic() < started + 5:
            try:
                dripping.sendall(b"{")
                if dripping.recv(4096):
                    break
            except TimeoutError:
                continue
        assert time.monotonic() - started < 3
        assert b"no whole request" in silent.recv(4096)


def test_idle_connections_lock_nobody_out() -> None:
    server = LasServer([SimulatedProvider()], line_timeout=60, max_connections=16)
    las = LasAddress("127.0.0.1", server.listen_tcp("127.0.0.1", 0), None)
    server.start()
    idle = [connect(las) for _ in range(100)]
    try:
        assert request_info(las, timeout=5)["kinds"] == ["simulated"]
        # The longest silent ones had to go, and the latest did not.
        assert [connection.recv(1) for connection in idle[:85]] == [b""] * 85
        idle[-1].sendall(b'{"op": "info"}\n')
        assert idle[-1].recv(1) == b"{"
    finally:
        for connection in idle:
            connection.close()
        server.stop()


def test_connections_leave_no_descriptor_behind(las: LasAddress) -> None:
    def descriptors() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    request_info(las)
    before = descriptors()
    for _ in range(50):
        with connect(las) as connection:
            connection.sendall(b'{"op"')
    deadline = time.monotonic() + 5
    while descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert descriptors() <= before
