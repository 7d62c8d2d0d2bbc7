"""The same conversion, run twice with the same key file and SOURCE_DATE_EPOCH, gives the same image."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.containers import FLASK_OPTIONS, Convert, run

pytestmark = pytest.mark.docker


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.touch(mode=0o600)
    file.write_text(secrets.token_hex(32))
    return file


def test_two_runs_give_one_image(flask_native: str, convert: Convert, key_file: Path, tmp_path: Path) -> None:
    def once(target: str) -> dict[str, str]:
        made = convert(
            f"--from={flask_native}", f"--to={target}", *FLASK_OPTIONS, f"--key-file={key_file}",
            "--namespace=reproducible", "--create-namespace", "--name=flask",
            environment={"SOURCE_DATE_EPOCH": "1700000000"},
        )  # fmt: skip
        return {name: made[name] for name in ("digest", "image_id", "measurement", "session")}

    first = once("sconify-test/reproducible:1")
    assert first == once("sconify-test/reproducible:2")
    ids = run("docker", "image", "inspect", "--format", "{{.Id}}", *(f"sconify-test/reproducible:{n}" for n in (1, 2)))
    assert ids.stdout.split() == [first["image_id"]] * 2
    layout = once(f"oci:{tmp_path}/layout:tag")
    assert layout["digest"] == once(f"oci:{tmp_path}/again:tag")["digest"]


def test_another_key_gives_another_image(flask_native: str, convert: Convert, key_file: Path) -> None:
    options = (f"--from={flask_native}", *FLASK_OPTIONS, "--namespace=reproducible", "--create-namespace", "--name=key")
    environment = {"SOURCE_DATE_EPOCH": "1700000000"}
    kept = convert(*options, "--to=sconify-test/reproducible:3", f"--key-file={key_file}", environment=environment)
    fresh = convert(*options, "--to=sconify-test/reproducible:4", environment=environment)
    assert kept["image_id"] != fresh["image_id"]
    assert kept["measurement"] == fresh["measurement"]
