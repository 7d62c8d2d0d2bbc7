from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sconify.cli.init import config_text, encrypted_name
from sconify.errors import UserError
from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image
from sconify.image.source import open_image
from sconify.propose import Proposal, propose
from tests.unit.program.conftest import build_elf

Make = Callable[..., Proposal]
ELF = build_elf(static=True, elf_type=2)


@pytest.fixture
def proposal(tmp_path: Path) -> Make:
    """Propose for an image with files (path to content, mode 0755) and a configuration."""

    def make(files: Mapping[str, bytes], **config: Any) -> Proposal:
        writer = LayerWriter(tmp_path / "layer", epoch=0)
        for path, content in files.items():
            writer.add_bytes(path, content, mode=0o755)
        reference = ImageReference.parse(f"oci:{tmp_path}/image:x")
        layers = [writer.finish()]
        write_image(reference, config=ImageConfig(**config), layers=layers, workdir=tmp_path, overwrite=False).commit()
        with open_image(reference, workdir=tmp_path) as image:
            return propose(image)

    return make


def test_a_shell_form_command(proposal: Make) -> None:
    made = proposal(
        {
            "/usr/bin/python3.11": ELF,
            "/usr/lib/python3.11/os.py": b"",
            "/app/x.py": b"",
            "/tls/key": b"",
            "/opt/tool/x": b"",
            "/etc/passwd": b"",
            "/bin/sh": ELF,
            "/home/user/.profile": b"",
            "/srv/data/deep/x": b"",
        },
        cmd=("/bin/sh", "-c", "python3.11 -B /app/x.py"),
        working_dir="/srv/data",
    )
    assert made.binary.value == "/usr/bin/python3.11"
    assert {one.value for one in made.directories} == {"/app", "/tls", "/opt/tool", "/home/user", "/srv/data"}
    assert made.command is None
    assert made.warnings == ()


def test_an_entrypoint_that_executes_its_arguments(proposal: Make) -> None:
    made = proposal(
        {
            "/usr/sbin/nginx": ELF,
            "/bin/sh": ELF,
            "/docker-entrypoint.sh": b'#!/bin/sh\nset -e\necho ready\nexec "$@"\n',
            "/etc/nginx/nginx.conf": b"",
            "/usr/share/nginx/html/index.html": b"",
        },
        entrypoint=("/docker-entrypoint.sh",),
        cmd=("nginx", "-g", "daemon off;"),
    )
    assert made.binary.value == "/usr/sbin/nginx"
    assert made.command is not None
    assert made.command.value == 'nginx -g "daemon off;"'
    assert [one.value for one in made.directories] == ["/usr/share/nginx/html", "/etc/nginx"]
    assert "prepares the start" in made.warnings[0]


def test_a_script_that_does_more_is_refused(proposal: Make) -> None:
    with pytest.raises(UserError, match="is a shell script"):
        proposal({"/bin/sh": ELF, "/start.sh": b"#!/bin/sh\nrun && stop\n"}, entrypoint=("/start.sh",), cmd=("x",))


def test_a_program_alone(proposal: Make) -> None:
    made = proposal({"/server": ELF}, entrypoint=("/server",))
    assert (made.binary.value, made.directories) == ("/server", ())
    assert "--dir=DIRECTORY" in made.warnings[0]


def test_what_a_virtual_environment_has_is_not_proposed_twice(proposal: Make) -> None:
    made = proposal(
        {
            "/opt/venv/bin/python": ELF,
            "/opt/venv/pyvenv.cfg": b"home = /usr/bin\n",
            "/opt/venv/lib/python3.11/site-packages/x.py": b"",
            "/usr/bin/python3.11": ELF,
            "/usr/lib/python3.11/os.py": b"",
            "/app/main.py": b"",
        },
        cmd=("/opt/venv/bin/python", "/app/main.py"),
    )
    assert {one.value for one in made.directories} == {"/app", "/opt/venv"}


def test_the_file_that_is_written_is_yaml_with_reasons(proposal: Make) -> None:
    made = proposal({"/server": ELF, "/app/x": b""}, entrypoint=("/server", "/app/x"))
    text = config_text(ImageReference.parse("team/app:v1"), "x", made, insecure=("localhost:5000",))
    data = yaml.safe_load(text)
    assert data["version"] == 1
    assert (data["from"], data["binary"], data["dir"]) == ("team/app:v1", "/server", ["/app"])
    assert data["insecure-registry"] == ["localhost:5000"]
    assert "# not a directory of the distribution" in text


@pytest.mark.parametrize(
    ("native", "encrypted"),
    [
        ("team/app:v1", "team/app-encrypted:v1"),
        ("docker://host:1/app", "docker://host:1/app-encrypted:latest"),
        ("oci:/a/b:x", "oci:/a/b-encrypted:x"),
    ],
)
def test_the_name_of_the_encrypted_image(native: str, encrypted: str) -> None:
    assert encrypted_name(ImageReference.parse(native)) == encrypted
