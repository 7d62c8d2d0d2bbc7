"""Odd images are taken as they are meant, or are refused with the right message."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator
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


@pytest.fixture
def convert_odd(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Convert the layout ``native`` of the test's directory without a CAS."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "DOCKER_HOST": "unix:///nowhere", "TMPDIR": str(tmp_path)}

    def call(*options: str, source: str = "oci:{}/native") -> subprocess.CompletedProcess[str]:
        return run(
            str(COMMANDS / "sconify_image"), f"--from={source.format(tmp_path)}", f"--to=oci:{tmp_path}/out:x",
            "--binary=/server", "--disable-session-upload", f"--session={tmp_path}/session.yml",
            f"--cas-key={'ab' * 32}", "--cas=cas.example", *options, env=environment, check=False,
        )  # fmt: skip

    return call


def write_layout(tmp_path: Path, *layers: tuple[bytes, bytes], **changes: Any) -> None:
    """Write an image of layers, each as it is stored and uncompressed; ``changes`` are made to the last descriptor."""
    layout = LayoutFactory(tmp_path / "native")
    entry = layout.image(list(layers))
    manifest = json.loads(layout.file(entry["digest"]).read_bytes())
    document = json.loads(layout.file(manifest["config"]["digest"]).read_bytes())
    document["config"] = {"Entrypoint": ["/server"]}
    manifest["config"] = layout.document(document, OCI_CONFIG)
    manifest["layers"][-1].update(changes)
    layout.index(layout.document(manifest, OCI_MANIFEST))


def test_a_file_of_three_gigabytes(convert_odd: Callable[..., Any], tmp_path: Path) -> None:
    """Nearly all of it is a hole, here and in the archive; what is encrypted is small, for it is compressed."""
    size = 3 << 30
    info = tarfile.TarInfo("data/large")
    info.size = size
    layer = tmp_path / "layer.tar"
    with layer.open("wb") as stream:
        for head, content in (SERVER, member("data", kind=tarfile.DIRTYPE)):
            stream.write(head.tobuf() + content + bytes(-len(content) % 512))
        stream.write(info.tobuf())
        start = stream.tell()
        stream.write(b"begin")
        stream.seek(start + size - 3)
        stream.write(b"end")
        stream.write(bytes(1024))
    digest = hashlib.sha256()
    with layer.open("rb") as stream:
        while chunk := stream.read(1 << 22):
            digest.update(chunk)
    name = digest.hexdigest()
    layout = LayoutFactory(tmp_path / "native")
    (tmp_path / f"native/blobs/sha256/{name}").hardlink_to(layer)
    config = {"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/server"]},
              "rootfs": {"type": "layers", "diff_ids": [f"sha256:{name}"]}}  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": layout.document(config, OCI_CONFIG),
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": f"sha256:{name}",
                    "size": layer.stat().st_size}],
    }  # fmt: skip
    layout.index(layout.document(manifest, OCI_MANIFEST))
    done = convert_odd("--dir=/data", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["chosen_size"] > size
    assert document["size"] < 100 << 20
    small = convert_odd("--dir=/data", "--overwrite", "--max-image-size=3g")
    assert small.returncode == 2
    assert "--max-image-size=SIZE" in small.stderr


@pytest.mark.parametrize("kind", ["layer", "archive"])
def test_a_small_file_that_is_a_huge_one(convert_odd: Callable[..., Any], tmp_path: Path, kind: str) -> None:
    """A zip bomb ends at the limit, with nothing left behind."""
    plain = archive(SERVER, member("zeros", bytes(300 << 20)))
    stored = gzip.compress(plain, 1)
    assert len(stored) < len(plain) // 100
    source = "oci:{}/native"
    if kind == "layer":
        write_layout(tmp_path, (stored, plain))
    else:
        (tmp_path / "native.tar.gz").write_bytes(stored)
        source = "oci-archive:{}/native.tar.gz"
    del plain
    done = convert_odd("--max-image-size=64m", source=source)
    assert done.returncode == 2, done.stderr
    assert "have more than 67108864 bytes uncompressed; give --max-image-size=SIZE" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("sconify-", "out"))) == []


@pytest.mark.parametrize("size", ["0", "lots", "-1", "1T"])
def test_what_is_no_size(convert_odd: Callable[..., Any], size: str) -> None:
    done = convert_odd(f"--max-image-size={size}")
    assert done.returncode == 2
    assert "give --max-image-size another value" in done.stderr


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """A web server with the directory ``elsewhere``."""
    directory = tmp_path / "elsewhere"
    directory.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"


def test_a_layer_that_is_kept_elsewhere(convert_odd: Callable[..., Any], elsewhere: str, tmp_path: Path) -> None:
    """It is fetched when that is allowed, and must have the digest and the size that the image states."""
    plain = archive(member("app/far", b"of far away"))
    stored = gzip.compress(plain, 1, mtime=0)
    urls = ["ftp://127.0.0.1/x", f"{elsewhere}/missing", f"{elsewhere}/layer"]
    write_layout(tmp_path, (archive(SERVER), archive(SERVER)), (stored, plain), mediaType=FOREIGN, urls=urls)
    blob = tmp_path / "native/blobs/sha256" / hashlib.sha256(stored).hexdigest()
    assert convert_odd("--dir=/app").returncode == 0  # somebody has put it into the layout
    blob.unlink()
    refused = convert_odd("--dir=/app", "--overwrite")
    assert refused.returncode == 2
    assert "is not part of the image but kept elsewhere" in refused.stderr
    assert f"{elsewhere}/layer; give --allow-foreign-layers" in refused.stderr
    missing = convert_odd("--dir=/app", "--overwrite", "--allow-foreign-layers")
    assert missing.returncode == 4
    assert "only http and https" in missing.stderr
    assert "404" in missing.stderr
    far = tmp_path / "elsewhere/layer"
    far.write_bytes(stored)
    done = convert_odd("--dir=/app", "--overwrite", "--allow-foreign-layers")
    assert done.returncode == 0, done.stderr
    for content, code in ((stored + b"x", 4), (stored[:-1], 4), (stored[:-1] + b"\xff", 3)):
        far.write_bytes(content)
        assert convert_odd("--dir=/app", "--overwrite", "--allow-foreign-layers").returncode == code


def test_a_foreign_layer_that_does_not_say_where_it_is(convert_odd: Callable[..., Any], tmp_path: Path) -> None:
    write_layout(
        tmp_path,
        (archive(SERVER), archive(SERVER)),
        mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar",
    )
    for blob in (tmp_path / "native/blobs/sha256").iterdir():
        if blob.read_bytes() == archive(SERVER):
            blob.unlink()
    done = convert_odd("--allow-foreign-layers")
    assert done.returncode == 2
    assert "use an image whose layers are all in it" in done.stderr
