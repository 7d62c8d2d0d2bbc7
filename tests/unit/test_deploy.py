"""The files for operators: a systemd unit and a Dockerfile, as far as they can be checked without starting them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "sconify-cas.service"
    text = (PROJECT / "deploy/sconify-cas.service").read_text()
    unit.write_text(text.replace("/opt/sconify/bin/sconify", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_does_not_forbid_what_the_cas_needs() -> None:
    # pyOpenSSL makes its callbacks at run time: with this the CAS ended at once.
    assert not re.search(r"^MemoryDenyWriteExecute=yes", (PROJECT / "deploy/sconify-cas.service").read_text(), re.M)


def test_options_of_unit_and_image_are_those_of_the_command() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "sconify.cli.main", "cas", "serve", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for file in ("sconify-cas.service", "Dockerfile"):
        text = (PROJECT / "deploy" / file).read_text()
        command = next(line for line in text.splitlines() if line.startswith(("ExecStart=", "ENTRYPOINT")))
        options = re.findall(r"--[a-z-]+", command)
        assert options
        assert all(option in shown for option in options)
