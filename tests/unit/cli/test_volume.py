"""``sconify volume`` as its user sees it: in a process of its own."""

from __future__ import annotations

import json
import secrets
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from sconify._shield import Volume


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    return new_key_file(tmp_path / "key")


@pytest.fixture
def volume(tmp_path: Path, key_file: Path) -> Path:
    """A volume with a file, imported as a user does."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"content" * 1_000)
    with tarfile.open(tmp_path / "tree.tar", "w") as archive:
        archive.add(tmp_path / "tree", ".")
    run("import", f"--key-file={key_file}", tmp_path / "tree.tar", tmp_path / "volume")
    return tmp_path / "volume"


def new_key_file(path: Path) -> Path:
    path.write_text(secrets.token_hex(32))
    path.chmod(0o600)
    return path


def run(*arguments: str | Path, code: int = 0) -> str:
    """Run the command; return its stdout, or its stderr if it must fail with ``code``."""
    done = subprocess.run(
        [sys.executable, "-m", "sconify.cli.main", "volume", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if code else done.stdout


def test_a_volume_is_inspected_and_checked(volume: Path, key_file: Path) -> None:
    facts = json.loads(run("inspect", "--json", f"--key-file={key_file}", volume))
    assert facts["key_generation"] == 0
    state = facts["state"]
    assert state.startswith("2:")
    assert state in run("inspect", f"--key-file={key_file}", f"--expect={state}", volume)
    assert run("check", f"--key-file={key_file}", volume).startswith(
        "sound: 2 inodes, 1 of them directories; 7000 byte"
    )


def test_what_is_exported_is_whole_and_private(volume: Path, key_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    run("export", f"--key-file={key_file}", volume, out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with tarfile.open(out) as archive:
        content = archive.extractfile("./file")
        assert content is not None
        assert content.read() == b"content" * 1_000
    assert "exists" in run("export", f"--key-file={key_file}", volume, out, code=2)


def test_a_changed_volume_exports_nothing(volume: Path, key_file: Path, tmp_path: Path) -> None:
    database = volume / "volume.sqlite"
    database.write_bytes(
        bytes(byte ^ 1 if index > 30_000 else byte for index, byte in enumerate(database.read_bytes()))
    )
    message = run("export", f"--key-file={key_file}", volume, tmp_path / "out.tar", code=3)
    assert "volume" in message
    assert not any(path.suffix in (".tar", ".partial") and path.name != "tree.tar" for path in tmp_path.iterdir())
    assert "volume" in run("check", f"--key-file={key_file}", volume, code=3)


def test_a_failed_import_leaves_nothing(tmp_path: Path, key_file: Path) -> None:
    (tmp_path / "no.tar").write_bytes(b"no archive" * 200)
    run("import", f"--key-file={key_file}", tmp_path / "no.tar", tmp_path / "new", code=2)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note").touch()
    run("import", f"--key-file={key_file}", tmp_path / "no.tar", tmp_path / "mine", code=2)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note"]


def test_a_volume_is_not_replaced(volume: Path, key_file: Path, tmp_path: Path) -> None:
    before = (volume / "volume.sqlite").read_bytes()
    message = run("import", f"--key-file={key_file}", tmp_path / "tree.tar", volume, code=2)
    assert "holds a volume already" in message
    run("backup", f"--key-file={key_file}", volume, volume, code=2)
    assert (volume / "volume.sqlite").read_bytes() == before


def test_a_rotated_key_is_the_only_one(volume: Path, key_file: Path, tmp_path: Path) -> None:
    new = new_key_file(tmp_path / "new-key")
    state = run("rotate", f"--key-file={key_file}", f"--new-key-file={new}", volume).strip()
    assert "foreign" in run("check", f"--key-file={key_file}", volume, code=3)
    run("check", f"--key-file={new}", f"--expect={state}", volume)
    assert "already" in run("rotate", f"--key-file={new}", f"--new-key-file={new}", volume, code=2)


def test_a_backup_is_older_than_what_came_after_it(volume: Path, key_file: Path, tmp_path: Path) -> None:
    copied = run("backup", f"--key-file={key_file}", volume, tmp_path / "backup").strip()
    run("check", f"--key-file={key_file}", f"--expect={copied}", tmp_path / "backup")
    opened = Volume.open(str(volume), bytes.fromhex(key_file.read_text()), writable=True)
    opened.add(Volume.ROOT, b"new", kind="-")
    counter, root = opened.commit()
    assert "in use" in run("inspect", f"--key-file={key_file}", volume, code=2)
    opened.close()
    message = run("check", f"--key-file={key_file}", f"--expect={counter}:{root.hex()}", tmp_path / "backup", code=3)
    assert "older: got commit 2, expected 3" in message


@pytest.mark.parametrize("command", ["inspect", "check"])
def test_what_is_no_volume_is_refused(command: str, key_file: Path, tmp_path: Path) -> None:
    assert "got no directory" in run(command, f"--key-file={key_file}", tmp_path / "nowhere", code=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no volume" in run(command, f"--key-file={key_file}", empty, code=2)
    assert {path.name for path in empty.iterdir()} <= {"volume.lock"}
    assert "COUNTER:ROOT" in run(command, f"--key-file={key_file}", "--expect=3", empty, code=2)
