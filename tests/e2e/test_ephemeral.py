"""What programs write in a container: every call comes out as in the native image on a tmpfs, and nothing shows."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.containers import Convert, run

SOURCE = Path(__file__).parents[2] / "crates/runtime/tests/supervisor/calls"
NATIVE = "sconify-test/calls:native"
ENCRYPTED = "sconify-test/calls:encrypted"
TOP = "/tmp/top"

MODES = {
    "as root": (),
    "as a user without capabilities on a read-only root": (
        "--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--read-only",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("calls")
    run("cc", "-O1", "-static", "-o", f"{directory}/calls", *map(str, SOURCE.glob("*.c")))
    (directory / "canary-name").write_text("canary-content")
    command = json.dumps(["/calls", TOP, "/dev"])
    (directory / "Dockerfile").write_text(
        f"FROM scratch\nCOPY calls /calls\nCOPY canary-name /data/canary-name\nVOLUME /data\nCMD {command}\n"
    )
    run("docker", "build", "--quiet", f"--tag={NATIVE}", str(directory))
    return NATIVE


@pytest.fixture
def encrypted(native: str, convert: Convert) -> dict[str, Any]:
    return convert(f"--from={native}", f"--to={ENCRYPTED}", "--binary=/calls", "--overwrite")


@pytest.mark.parametrize("mode", MODES)
def test_every_call_comes_out_as_on_a_native_tmpfs(mode: str, encrypted: dict[str, Any]) -> None:
    expected = run("docker", "run", "--rm", "--tmpfs=/tmp:mode=1777,exec", *MODES[mode], NATIVE)
    served = run("docker", "run", "--rm", *MODES[mode], ENCRYPTED)
    assert served.stdout.splitlines() == expected.stdout.splitlines()


def test_the_image_shows_nothing_of_its_volumes(encrypted: dict[str, Any]) -> None:
    container = run("docker", "create", ENCRYPTED).stdout.strip()
    try:
        exported = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        run("docker", "rm", container)
    assert b"canary-" not in exported
    assert "VOLUME /data is ephemeral" in encrypted["stderr"]
