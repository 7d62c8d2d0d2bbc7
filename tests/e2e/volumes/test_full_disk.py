"""A full disk beneath a volume: the program gets ENOSPC, and goes on as soon as there is room."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.containers import Convert, run

pytestmark = pytest.mark.docker


def test_a_full_disk_is_told_and_got_over(convert: Convert, tmp_path: Path) -> None:
    run("cc", "-O1", "-static", "-o", f"{tmp_path}/filler", str(Path(__file__).with_name("filler.c")))
    command = json.dumps(["/filler", "/data"])
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\nCOPY filler /filler\nCMD {command}\n")
    native, encrypted = "sconify-test/filler:native", "sconify-test/filler:encrypted"
    run("docker", "build", "--quiet", f"--tag={native}", str(tmp_path))
    convert(f"--from={native}", f"--to={encrypted}", "--binary=/filler", "--overwrite", "--volume=data:/data")
    disk = "--tmpfs=/data:size=96m,mode=777"
    expected = run("docker", "run", "--rm", disk, native).stdout
    assert expected == "full: No space left on device, after some: yes\nsound\n"
    assert run("docker", "run", "--rm", disk, encrypted).stdout == expected
