"""Odd images are taken as they are meant, or are refused with the right message."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sconify.image.layout import OCI_CONFIG, OCI_MANIFEST
from tests.containers import COMMANDS, run
from tests.unit.image.conftest import LayoutFactory
from tests.unit.program.conftest import build_elf

PROGRAM = build_elf(static=True, elf_type=2)
Explain = Callable[..., dict[str, Any]]


Member = tuple[tarfile.TarInfo, bytes]


def member(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.mode = kind, len(content), 0o755
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def archive(*members: Member) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


SERVER = member("server", PROGRAM)


@pytest.fixture
def look(tmp_path: Path) -> Explain:
    """Plan the conversion of an image of these layers, without any engine; return the JSON document or the message."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "DOCKER_HOST": "unix:///nowhere", "TMPDIR": str(tmp_path)}

    def call(
        *layers: bytes,
        options: tuple[str, ...] = ("--binary=/server",),
        code: int = 0,
        diff_ids: Any = None,
        **config: Any,
    ) -> dict[str, Any]:
        layout = LayoutFactory(tmp_path / "native")
        entry = layout.image([(layer, layer) for layer in layers], diff_ids=diff_ids)
        manifest = json.loads(layout.file(entry["digest"]).read_bytes())
        document = json.loads(layout.file(manifest["config"]["digest"]).read_bytes())
        document["config"] = {"Entrypoint": ["/server"], **config}
        manifest["config"] = layout.document(document, OCI_CONFIG)
        layout.index(layout.document(manifest, OCI_MANIFEST))
        command = [f"--from=oci:{tmp_path}/native", f"--to=oci:{tmp_path}/out:x", "--explain", "--json", *options]
        done = run(str(COMMANDS / "sconify_image"), *command, env=environment, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "out").exists()
        return {"error": done.stderr} if code else json.loads(done.stdout)

    return call


def paths(document: dict[str, Any]) -> set[str]:
    return {path for path, entry in document["paths"].items() if entry["protection"] != "host"}


def test_no_environment_and_no_working_directory(look: Explain) -> None:
    made = look(archive(SERVER), Env=None, WorkingDir="", Cmd=None)
    assert made["working_directory"] == "/"
    assert made["variables"] == ["HOME", "PATH"]


def test_neither_entrypoint_nor_command(look: Explain) -> None:
    message = look(archive(SERVER), Entrypoint=None, Cmd=None, code=2)["error"]
    assert "neither Entrypoint nor Cmd" in message
    assert "--command=" in message


@pytest.mark.parametrize("user", ["1000", "nobody", "1000:2000", "unknown:unknown", ""])
def test_any_user(look: Explain, user: str) -> None:
    assert (
        look(archive(SERVER, member("etc/passwd", b"root:x:0:0::/root:/bin/sh\n")), User=user)["program"] == "/server"
    )


def test_triggers_for_builds_do_no_harm(look: Explain) -> None:
    assert look(archive(SERVER), OnBuild=["RUN rm -rf /"])["program"] == "/server"


def test_whiteouts_opaque_directories_and_hard_links_across_layers(look: Explain) -> None:
    lower = archive(SERVER, member("app/a", b"1"), member("app/b", b"2"), member("app/sub/c", b"3"))
    upper = archive(
        member("app/.wh.a"), member("app/sub/.wh..wh..opq"), member("app/sub/d", b"4"),
        member("app/linked", kind=tarfile.LNKTYPE, linkname="app/b"),
    )  # fmt: skip
    made = look(lower, upper, options=("--binary=/server", "--dir=/app"))
    assert {path for path in paths(made) if path.startswith("/app/")} == {
        "/app/b",
        "/app/linked",
        "/app/sub",
        "/app/sub/d",
    }


def test_names_that_are_no_utf_8_or_have_line_ends(look: Explain) -> None:
    odd = member(os.fsdecode(b"app/\xff\xfe"), b"1"), member("app/line\nend", b"2"), member("app/ space ", b"3")
    made = look(archive(SERVER, *odd), options=("--binary=/server", "--dir=/app"))
    assert {"/app/line\nend", "/app/ space ", "/app/\udcff\udcfe"} <= paths(made)


def test_devices_capabilities_and_attributes(look: Explain) -> None:
    odd = (
        member("app/null", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("app/pipe", kind=tarfile.FIFOTYPE),
        member("app/x", b"1", pax_headers={"SCHILY.xattr.user.note": "text", "SCHILY.xattr.security.capability": "x"}),
        member("app/setuid", b"1", mode=0o4755, uid=65534, gid=65534),
    )
    made = look(archive(SERVER, *odd), options=("--binary=/server", "--dir=/app"))
    assert {"/app/null", "/app/pipe", "/app/x", "/app/setuid"} <= paths(made)


def test_a_hundred_layers(look: Explain) -> None:
    layers = [archive(member(f"app/{number}", b"x"), member("app/last", str(number).encode())) for number in range(100)]
    made = look(archive(SERVER), *layers, options=("--binary=/server", "--dir=/app"))
    assert len([path for path in paths(made) if path.startswith("/app/")]) == 101


def test_a_layer_whose_digest_lies(look: Explain) -> None:
    message = look(archive(SERVER), diff_ids=["sha256:" + "0" * 64], code=3)["error"]
    assert "was changed" in message


@pytest.mark.parametrize("name", ["../outside", "/../../outside", "app/../../outside"])
def test_a_path_out_of_the_image(look: Explain, name: str, tmp_path: Path) -> None:
    look(archive(SERVER, member(name, b"x")), code=3)
    assert not (tmp_path.parent / "outside").exists()


def test_links_that_lead_out_end_in_the_image(look: Explain) -> None:
    """An absolute link, and one with more ``..`` than there are directories, mean the image's root."""
    links = (
        member("app/absolute", kind=tarfile.SYMTYPE, linkname="/etc/inside"),
        member("app/upwards", kind=tarfile.SYMTYPE, linkname="../../../../etc/inside"),
        member("etc/inside", b"of the image"),
    )
    options = ("--binary=/server", "--plain-file=/app/absolute", "--plain-file=/app/upwards")
    made = look(archive(SERVER, *links), options=options)
    assert {"/app/absolute", "/app/upwards", "/etc/inside"} <= paths(made)


def test_what_a_hard_link_to_nowhere_is(look: Explain) -> None:
    message = look(archive(SERVER, member("x", kind=tarfile.LNKTYPE, linkname="nowhere")), code=3)["error"]
    assert "nowhere" in message
