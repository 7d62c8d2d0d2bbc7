"""Conversions that cannot be: one line with the flag that mends it, the exit code, and nothing left behind."""

from __future__ import annotations

import json
import signal
import sqlite3
import struct
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.containers import COMMANDS, Canaries, run

pytestmark = pytest.mark.docker

USER, UNTRUSTED, SERVICE, INTERRUPTED = 2, 3, 4, 130
Attempt = Callable[..., str]

ODD_PROGRAMS = {
    "text": b"#!/bin/sh\n# not the program itself\n" * 3,
    "32-bit": b"\x7fELF\x01\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 3, 1) + bytes(32),
    "foreign": b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 2, 183, 1) + bytes(40),
    "garbage": b"\0\x01\x02" * 30,
}


@pytest.fixture(scope="module")
def native(flask_native: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The native image with odd programs and a shell entrypoint, as a layout: no engine is needed to read it."""
    context = tmp_path_factory.mktemp("context")
    for name, content in ODD_PROGRAMS.items():
        (context / name).write_bytes(content)
        (context / name).chmod(0o755)
    entrypoint = json.dumps(["/bin/sh", "-c", "cd /app && for f in *.py; do python3 $f; done"])
    (context / "Dockerfile").write_text(
        f"FROM {flask_native}\nCOPY {' '.join(ODD_PROGRAMS)} /odd/\nENTRYPOINT {entrypoint}\nCMD []\n"
    )
    run("docker", "build", "--quiet", "--tag", "sconify-test/odd:native", str(context))
    directory = tmp_path_factory.mktemp("layout")
    run("skopeo", "copy", "--quiet", "docker-daemon:sconify-test/odd:native", f"oci:{directory}:native")
    return f"oci:{directory}:native"


@pytest.fixture(scope="module", autouse=True)
def services(home: dict[str, str]) -> None:
    """The embedded services run before, so that their start is no part of what is compared."""
    run(str(COMMANDS / "sconify"), "embedded", "start", env=home)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    directory = tmp_path / "scratch"
    directory.mkdir()
    return directory


def sessions(home: dict[str, str]) -> int:
    store = Path(home["HOME"], ".local/share/sconify/embedded/cas/cas.sqlite")
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        count: int = connection.execute("SELECT COUNT(*) FROM session_versions").fetchone()[0]
    return count


@pytest.fixture
def refused(home: dict[str, str], native: str, tmp_path: Path, scratch: Path) -> Iterator[Attempt]:
    """Convert with options that can't work; return the message. Nothing may be left behind."""
    output = tmp_path / "output"
    before = sessions(home)

    def attempt(*options: str, code: int = USER, source: str = native, **environment: str) -> str:
        done = run(
            str(COMMANDS / "sconify_image"), f"--from={source}", f"--to=oci:{output}:out", *options,
            check=False, env={**home, "TMPDIR": str(scratch), **environment},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        messages = [line for line in done.stderr.splitlines() if line.startswith("sconify_image: error: ")]
        assert len(messages) == 1, done.stderr
        return done.stderr[done.stderr.index(messages[0]) :]

    yield attempt
    assert not output.exists()
    assert list(scratch.iterdir()) == []
    assert sessions(home) == before


@pytest.mark.parametrize("mode", ["--binary-fs", "--plain-file=/etc/hostname"])
def test_a_layer_that_was_changed(
    refused: Attempt, flask_native: str, canaries: Canaries, tmp_path: Path, mode: str
) -> None:
    """Its files are encrypted before its digest is known; nothing comes of it."""
    archive = tmp_path / "native.tar"
    run("docker", "save", "--output", str(archive), flask_native)
    with tarfile.open(archive) as members:
        layers = [member for member in members if member.name.endswith("layer.tar")]
    content = archive.read_bytes()
    place = next(
        at
        for layer in layers
        if (at := content.find(canaries.app.encode(), layer.offset_data, layer.offset_data + layer.size)) >= 0
    )
    archive.write_bytes(content[:place] + b"C" + content[place + 1 :])
    options = ("--binary=/usr/bin/python3", "--dir=/app" if mode != "--binary-fs" else "--fs-dir=/app", mode)
    message = refused(*options, source=f"docker-archive:{archive}", code=UNTRUSTED)
    assert "was changed: the digest of its uncompressed archive is sha256:" in message


PYTHON = "--binary=python3"
COMMAND = "--command=python3 /app/rest_api.py"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--binary=/usr/bin/nothing"], ["/usr/bin/nothing", "--binary"]),
        (["--binary=nothing"], ["nothing", "PATH", "--binary"]),
        (["--binary=/app"], ["/app", "--binary"]),
        (["--binary=/etc/passwd"], ["/etc/passwd", "--binary"]),
        (["--binary=/odd/garbage"], ["/odd/garbage", "--binary"]),
        (["--binary=/odd/32-bit"], ["/odd/32-bit", "32-bit", "--binary"]),
        (["--binary=/odd/foreign"], ["/odd/foreign", "aarch64", "linux/amd64"]),
        ([PYTHON], ["/bin/sh", "--command"]),
        ([PYTHON, COMMAND, "--dir=/nothing"], ["/nothing", "--dir"]),
        ([PYTHON, COMMAND, "--plain=/nothing"], ["/nothing", "--plain"]),
        ([PYTHON, COMMAND, "--plain-file=/nothing"], ["/nothing", "--plain-file"]),
        ([PYTHON, COMMAND, "--dir=app"], ["app", "--dir"]),
        ([PYTHON, COMMAND, "--env=NOVALUE"], ["NOVALUE", "--env"]),
        ([PYTHON, COMMAND, "--heap=lots"], ["lots", "--heap"]),
        ([PYTHON, COMMAND, "--name=a/b"], ["a/b", "--name"]),
        ([PYTHON, COMMAND, "--key-file=/nothing"], ["/nothing", "--key-file"]),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_the_image(refused: Attempt, options: list[str], expected: list[str]) -> None:
    message = refused(*options)
    for text in expected:
        assert text in message
    assert len(message.splitlines()) == 1, message


def test_a_missing_image(refused: Attempt) -> None:
    message = refused(PYTHON, source="oci:/nothing:tag")
    assert "/nothing" in message
    assert "give oci:PATH" in message


def test_a_file_that_is_no_image(refused: Attempt, tmp_path: Path) -> None:
    file = tmp_path / "file.tar"
    file.write_bytes(b"no archive" * 200)
    assert str(file) in refused(PYTHON, source=f"docker-archive:{file}", code=UNTRUSTED)


def test_a_cas_that_can_not_be_reached(refused: Attempt) -> None:
    message = refused(PYTHON, COMMAND, "--cas=127.0.0.1:9", code=SERVICE, SCONE_CLI_RETRIES="0")
    assert "127.0.0.1:9" in message
    assert "--cas" in message


def test_a_cas_with_another_key_than_before(
    refused: Attempt, home: dict[str, str], cas_of: Callable[..., str], tmp_path: Path
) -> None:
    address = cas_of("first")
    records = str(tmp_path / "records.json")
    attest = run(
        str(COMMANDS / "sconify"),
        "cas",
        "attest",
        "--only_for_testing-debug",
        address,
        env={**home, "SCONE_CLI_CONFIG": records},
    )
    assert "is trustworthy" in attest.stdout
    assert cas_of("second") == address
    message = refused(PYTHON, COMMAND, f"--cas={address}", "--cas-debug", code=UNTRUSTED, SCONE_CLI_CONFIG=records)
    assert "key" in message
    assert address in message


def test_a_debug_cas_needs_consent(refused: Attempt, cas_of: Callable[..., str]) -> None:
    message = refused(PYTHON, COMMAND, f"--cas={cas_of('debug')}", code=UNTRUSTED)
    assert "debug" in message
    assert "--cas-debug" in message


def test_a_cas_that_refuses(home: dict[str, str], native: str, tmp_path: Path) -> None:
    """The namespace belongs to somebody else."""

    def once(name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        options = ("--namespace=taken", "--create-namespace", PYTHON, COMMAND, f"--to=oci:{tmp_path}/{name}:out")
        return run(str(COMMANDS / "sconify_image"), f"--from={native}", *options, check=False, env=environment)

    first = once("first", {**home, "SCONE_CLI_CONFIG": str(tmp_path / "other.json")})
    assert first.stdout.startswith("taken/"), first.stderr
    before = sessions(home)
    second = once("second", home)
    assert second.returncode == USER, second.stderr
    assert "taken" in second.stderr.splitlines()[-1]
    assert not (tmp_path / "second").exists()
    assert sessions(home) == before


def test_a_tag_that_exists(home: dict[str, str], native: str, tmp_path: Path) -> None:
    command = [str(COMMANDS / "sconify_image"), f"--from={native}", f"--to=oci:{tmp_path}/out:tag", PYTHON, COMMAND]
    run(*command, env=home)
    index = (tmp_path / "out" / "index.json").read_bytes()
    before = sessions(home)
    done = run(*command, env=home, check=False)
    assert done.returncode == USER
    assert "exists already; give --overwrite" in done.stderr
    assert (tmp_path / "out" / "index.json").read_bytes() == index
    assert sessions(home) == before


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk))
    yield disk
    run("umount", str(disk))


def test_a_full_disk(refused: Attempt, full_disk: Path) -> None:
    message = refused(PYTHON, COMMAND, code=SERVICE, TMPDIR=str(full_disk))
    assert f"no space is left in {full_disk}" in message
    assert list(full_disk.iterdir()) == []


@pytest.mark.parametrize("step", ["read the native image", "write the image"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption(
    home: dict[str, str], native: str, tmp_path: Path, scratch: Path, step: str, number: signal.Signals
) -> None:
    before = sessions(home)
    output = tmp_path / "output"
    conversion = subprocess.Popen(
        [str(COMMANDS / "sconify_image"), f"--from={native}", f"--to=oci:{output}:out", PYTHON, COMMAND],
        env={**home, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert conversion.stderr is not None
    for line in conversion.stderr:
        if step in line:
            break
    time.sleep(0.1)
    conversion.send_signal(number)
    rest = conversion.stderr.read()
    assert conversion.wait(30) == 128 + number, rest
    assert "Traceback" not in rest
    assert not output.exists()
    assert list(scratch.iterdir()) == []
    assert sessions(home) == before
