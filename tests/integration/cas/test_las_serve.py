"""`sconify las serve` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sconify.las.request import LasAddress, request_evidence, request_info


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_warns_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "las.sock"
    command = [sys.executable, "-m", "sconify.cli.main", "las", "serve", "--listen=127.0.0.1:0", f"--socket={path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        warning, offer = process.stderr.readline(), process.stderr.readline()
        assert "SIMULATED" in warning
        assert "proves NOTHING" in warning
        assert f"unix:{path}" in offer
        assert "simulated evidence" in offer
        tcp = LasAddress.parse(offer.split()[3].rstrip(","))
        for address in (tcp, LasAddress.parse(f"unix:{path}")):
            assert request_info(address)["kinds"] == ["simulated"]
            request_evidence(address, report_data=bytes(64), measurement=bytes(32))
        process.send_signal(number)
        out, log = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out == ""
    assert f"pid {os.getpid()} uid" in log
    assert not path.exists()
