"""The host changes a converted image: each change is refused, and the message names what was changed."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sconify.cas.bridges import bridge_addresses
from tests.containers import COMMANDS, ENCRYPTED, FLASK_OPTIONS, Canaries, Container, Convert, run

pytestmark = pytest.mark.docker

PROGRAM = "/usr/bin/python3.11"
TIMED_OUT = 124
"""Exit code of ``timeout``, which ends the container with its client."""


class Tampered:
    """An image made from the encrypted one by replacing files: what a host can do to every layer."""

    def __init__(self, directory: Path, image: str) -> None:
        self._directory = directory
        self._image = image
        self._container = run("docker", "create", ENCRYPTED).stdout.strip()
        self._copies: list[str] = []

    def read(self, path: str) -> bytes:
        file = self._directory / "read"
        run("docker", "cp", f"{self._container}:{path}", str(file))
        return file.read_bytes()

    def write(self, path: str, content: bytes, *, mode: int = 0o444) -> None:
        name = f"file{len(self._copies)}"
        (self._directory / name).write_bytes(content)
        (self._directory / name).chmod(mode)
        self._copies.append(f"COPY {name} {path}")

    def flip(self, path: str, at: int, *, mode: int = 0o444) -> None:
        content = bytearray(self.read(path))
        content[at] ^= 1
        self.write(path, bytes(content), mode=mode)

    def build(self) -> str:
        run("docker", "rm", self._container)
        (self._directory / "Dockerfile").write_text("\n".join([f"FROM {ENCRYPTED}", *self._copies]) + "\n")
        run("docker", "build", "--quiet", "--tag", self._image, str(self._directory))
        return self._image


@pytest.fixture
def tampered(tmp_path: Path, flask_encrypted: dict[str, Any]) -> Tampered:
    return Tampered(tmp_path, f"sconify-test/tampered:{tmp_path.name.replace('_', '-').lower()}")


def refusal(image: str, *options: str) -> str:
    """Run an image that must be refused, which ends it, and return what it said."""
    done = run("timeout", "30", "docker", "run", "--rm", *options, image, check=False, timeout=60)
    assert done.returncode not in (0, TIMED_OUT), f"not refused:\n{done.stdout}\n{done.stderr}"
    return done.stderr


def test_a_flipped_bit_in_the_index(tampered: Tampered) -> None:
    tampered.flip("/.sconify/index", 200)
    assert "/.sconify/index" in refusal(tampered.build())


def test_a_truncated_index(tampered: Tampered) -> None:
    tampered.write("/.sconify/index", tampered.read("/.sconify/index")[:-1])
    assert "/.sconify/index" in refusal(tampered.build())


def test_an_index_of_another_conversion(
    tampered: Tampered, flask_native: str, convert: Convert, tmp_path: Path
) -> None:
    """The same files under another key: it is a whole, valid index, but not the policy's."""
    other = convert(f"--from={flask_native}", "--to=sconify-test/flask:other", *FLASK_OPTIONS)["image"]
    container = run("docker", "create", "sconify-test/flask:other").stdout.strip()
    assert other
    run("docker", "cp", f"{container}:/.sconify/index", str(tmp_path / "index"))
    run("docker", "rm", container)
    tampered.write("/.sconify/index", (tmp_path / "index").read_bytes())
    assert "/.sconify/index" in refusal(tampered.build())


@pytest.mark.parametrize("pack", ["pack0", "pack1", "pack2"])
def test_a_flipped_bit_in_a_pack(tampered: Tampered, pack: str) -> None:
    """The service opens a file of each pack when it starts: its code, its key, its program."""
    tampered.flip(f"/.sconify/{pack}", 32 + 50)
    message = refusal(tampered.build())
    assert f"/.sconify/{pack}" in message


def test_swapped_packs(tampered: Tampered) -> None:
    one, other = tampered.read("/.sconify/pack0"), tampered.read("/.sconify/pack1")
    tampered.write("/.sconify/pack0", other)
    tampered.write("/.sconify/pack1", one)
    assert "/.sconify/pack" in refusal(tampered.build())


def test_a_truncated_pack(tampered: Tampered) -> None:
    tampered.write("/.sconify/pack2", tampered.read("/.sconify/pack2")[:-1])
    assert "/.sconify/pack2" in refusal(tampered.build())


def test_a_missing_pack(tampered: Tampered) -> None:
    tampered.write("/.sconify/pack2", b"")
    assert "/.sconify/pack2" in refusal(tampered.build())


def test_a_changed_plain_file(tampered: Tampered) -> None:
    """The bytecode of a module that the service imports: Python reads it in place of the source."""
    path = "/usr/lib/python3/dist-packages/flask/__pycache__/app.cpython-311.pyc"
    tampered.flip(path, -1, mode=0o644)
    assert path in refusal(tampered.build())


def test_a_truncated_shared_object(tampered: Tampered) -> None:
    path = "/usr/lib/x86_64-linux-gnu/libz.so.1.2.13"
    tampered.write(path, tampered.read(path)[:-1], mode=0o644)
    assert path in refusal(tampered.build())


def test_a_changed_dynamic_loader(tampered: Tampered) -> None:
    path = "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    tampered.flip(path, 5000, mode=0o755)
    assert path in refusal(tampered.build())


def test_extra_files_do_not_exist(tampered: Tampered, start: Callable[..., Container], canaries: Canaries) -> None:
    """A module planted beside the service's code would be imported first, if it existed."""
    for directory in ("/app", "/usr/lib/python3.11", "/usr/lib/python3/dist-packages"):
        tampered.write(f"{directory}/flask.py", b"raise SystemExit('planted')", mode=0o644)
    tampered.write("/app/sitecustomize.py", b"raise SystemExit('planted')", mode=0o644)
    tampered.write("/etc/ld.so.preload", b"/app/evil.so", mode=0o644)
    container = start(tampered.build())
    assert container.answer()["greeting"] == canaries.environment
    assert "planted" not in container.logs()


def test_a_changed_runtime_has_another_measurement(tampered: Tampered, flask_encrypted: dict[str, Any]) -> None:
    """A byte in the middle of a message text: the runtime still runs, and the CAS refuses it."""
    binary = tampered.read(PROGRAM)
    tampered.flip(PROGRAM, binary.index(b"To mend it") + 3, mode=0o755)
    image = tampered.build()
    message = refusal(image)
    assert "measurement" in message
    assert flask_encrypted["measurement"] in message


def test_a_changed_start_up_variable_has_another_measurement(flask_encrypted: dict[str, Any]) -> None:
    assert "measurement" in refusal(ENCRYPTED, "--env", "SCONE_HEAP=2G")


def test_another_service_gets_nothing(flask_encrypted: dict[str, Any], flask_native: str, convert: Convert) -> None:
    """A converted image that asks for the configuration of another one."""
    convert(f"--from={flask_native}", "--to=sconify-test/flask:heap", *FLASK_OPTIONS, "--heap=2G")
    message = refusal("sconify-test/flask:heap", "--env", f"SCONE_CONFIG_ID={flask_encrypted['config_id']}")
    assert "measurement" in message


def test_another_cas_is_refused(flask_encrypted: dict[str, Any]) -> None:
    """The key of the CAS is in the measured manifest: another server at the address is not asked for anything."""
    message = refusal(ENCRYPTED, "--env", "SCONE_CAS_ADDR=127.0.0.1:9", "--network", "none")
    assert "127.0.0.1" in message


def test_the_key_of_another_file_system(
    flask_native: str, convert: Convert, home: dict[str, str], tmp_path: Path
) -> None:
    """The owner of a session who gives it the wrong key gets an error that names the index, not garbage."""
    made = convert(f"--from={flask_native}", "--to=sconify-test/flask:wrong-key", *FLASK_OPTIONS)
    text = run(str(COMMANDS / "sconify"), "session", "read", made["session"], env=home).stdout
    changed = re.sub(r'(fspf_key: "?)[0-9a-f]{64}', rf"\g<1>{'07' * 32}", text)
    assert changed != text
    (tmp_path / "session.yml").write_text(changed)
    run(str(COMMANDS / "sconify"), "session", "update", str(tmp_path / "session.yml"), env=home)
    message = refusal("sconify-test/flask:wrong-key")
    assert "/.sconify/index" in message
    assert "key" in message
    assert "07" * 32 not in message


def test_a_production_cas_refuses_simulated_evidence(
    flask_encrypted: dict[str, Any], flask_native: str, convert: Convert, tmp_path: Path
) -> None:
    """Even if the client lets the policy be kept there, and the image is what the policy names."""
    gateway = bridge_addresses()[0]
    reader, writer = os.pipe()
    server = subprocess.Popen(
        [
            *(str(COMMANDS / "sconify"), "cas", "serve", "--production", "--quiet", f"--state-dir={tmp_path / 'cas'}"),
            *(f"--client-listen={gateway}:0", f"--enclave-listen={gateway}:0", f"--ready-fd={writer}"),
        ],
        pass_fds=[writer], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writer)
    try:
        assert os.read(reader, 100) == b"ready\n"
        assert server.stdout is not None
        addresses: dict[str, str] = {}
        while len(addresses) < 2:
            name, _, address = server.stdout.readline().strip().partition(" API: https://")
            if address:
                addresses[name] = address
        convert(
            f"--from={flask_native}", "--to=sconify-test/flask:production", *FLASK_OPTIONS,
            f"--cas={addresses['Client']}", "--cas-debug", f"--las={flask_encrypted['las']}",
        )  # fmt: skip
        message = refusal("sconify-test/flask:production", "--env", f"SCONE_CAS_ADDR={addresses['Enclave']}")
        assert "simulated" in message
        assert "production" in message
    finally:
        server.terminate()
        server.wait(30)
        os.close(reader)
