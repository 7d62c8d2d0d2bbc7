"""Images of the real Docker engine: our merged index against what a container of the image contains."""

from __future__ import annotations

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sconify.errors import ServiceError, UserError
from sconify.image.compression import Compression, sha256
from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.model import Entry, EntryType, Extent
from sconify.image.reference import ImageReference, Transport
from sconify.image.rootfs import RootFileSystem
from sconify.image.sink import write_image
from sconify.image.source import Image, open_image

pytestmark = pytest.mark.docker
Run = Callable[..., str]

TYPES = {
    tarfile.REGTYPE: EntryType.FILE,
    tarfile.SYMTYPE: EntryType.SYMLINK,
    tarfile.DIRTYPE: EntryType.DIRECTORY,
    tarfile.CHRTYPE: EntryType.CHARACTER,
    tarfile.BLKTYPE: EntryType.BLOCK,
    tarfile.FIFOTYPE: EntryType.FIFO,
}
# docker create makes these in a container, whatever the image has.
MADE_BY_DOCKER = {"/.dockerenv", "/dev/console", "/dev/pts", "/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/mtab",
                  "/etc/resolv.conf", "/proc", "/sys"}  # fmt: skip
DIRECTORIES_TOUCHED = {"/", "/dev", "/etc"}


def opened(text: str, workdir: Path) -> Image:
    return open_image(ImageReference.parse(text), workdir=workdir)


def exported(image: str, run: Run) -> dict[str, tuple[Any, ...]]:
    """Return what a container of the image contains, read by the standard library."""
    container = run("docker", "create", image, "command")
    try:
        data = subprocess.run(["docker", "export", container], capture_output=True, check=True).stdout
    finally:
        run("docker", "rm", container)
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        found = {}
        for info in tar:
            path = "/" + info.name.removeprefix("./").strip("/")
            digest = ""
            linked = tar.getmember(info.linkname) if info.islnk() else info
            if linked.isreg():
                content = tar.extractfile(linked)
                assert content is not None
                digest = hashlib.sha256(content.read()).hexdigest()
            found[path] = (
                TYPES[linked.type],
                0o777 if linked.issym() else linked.mode & 0o7777,
                linked.uid,
                linked.gid,
                int(linked.mtime),
                linked.linkname if linked.issym() else "",
                (linked.devmajor, linked.devminor) if linked.isdev() and not linked.isfifo() else (0, 0),
                linked.pax_headers.get("SCHILY.xattr.security.capability"),
                digest,
            )
        return found


def described(root: RootFileSystem, entry: Entry) -> tuple[Any, ...]:
    digest = ""
    if entry.type is EntryType.FILE:
        with root.open(entry) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    capability = entry.xattrs.get("security.capability")
    return (
        entry.type,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime,
        entry.target,
        entry.device,
        None if capability is None else capability.decode(errors="surrogateescape"),
        digest,
    )


def compare(image: str, run: Run, workdir: Path) -> None:
    theirs = {path: what for path, what in exported(image, run).items() if path not in MADE_BY_DOCKER}
    with opened(f"docker-daemon:{image}", workdir) as found:
        ours = {entry.path: described(found.root, entry) for entry in found.root.walk()}
    ours = {path: what for path, what in ours.items() if path not in MADE_BY_DOCKER}
    for path in DIRECTORIES_TOUCHED:
        ours.pop(path, None)
        theirs.pop(path, None)
    assert ours == theirs


def test_a_layered_image_is_what_docker_shows(layered_image: str, run: Run, tmp_path: Path) -> None:
    compare(layered_image, run, tmp_path)


def test_the_configuration(layered_image: str, run: Run, tmp_path: Path) -> None:
    with opened(layered_image, tmp_path) as image:
        assert image.reference.transport is Transport.DOCKER_DAEMON
        assert image.id == run("docker", "inspect", "-f", "{{.Id}}", layered_image)
        assert image.config.entrypoint == ("/bin/program",)
        assert image.config.env["GREETING"] == "hello"
        assert image.config.working_dir == "/work/here"
        assert image.config.exposed_ports == ("80/tcp",)
        assert (image.config.architecture, image.config.os) == ("amd64", "linux")
        assert len(image.layers) == len(image.config.diff_ids) > 4
        linked = image.root.resolve("/etc/linked")
        assert image.root.read(linked, 10) == b"one"


def test_an_image_by_its_id(layered_image: str, run: Run, tmp_path: Path) -> None:
    identity = run("docker", "inspect", "-f", "{{.Id}}", layered_image)
    with opened(f"docker-daemon:{identity}", tmp_path) as image:
        assert image.id == identity


def test_whiteouts_and_opaque_directories_of_a_real_engine(
    layered_image: str, repository: str, run: Run, tmp_path: Path
) -> None:
    layer = tmp_path / "layer.tar"
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind in [
            ("etc/.wh.removed", b"0"), ("etc/opaque", b"5"), ("etc/opaque/.wh..wh..opq", b"0"),
            ("etc/opaque/new", b"0"),
            ("data", b"5"), ("data/becomes-file", b"0"), ("data/becomes-directory", b"5"),
            ("data/becomes-directory/x", b"0"), ("usr", b"5"), ("usr/.wh.lib", b"0"), ("var", b"5"),
            ("var/.wh.nothing", b"0"),
            ("etc", b"5"), ("etc/a", b"0"), ("etc/b", b"1"),
        ]:  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, 0o755, 1_000_000_000
            info.linkname = "etc/a" if kind == b"1" else ""
            tar.addfile(info)
    with opened(f"docker-daemon:{layered_image}", tmp_path) as image:
        blob = Extent(layer, 0, layer.stat().st_size)
        top = Layer(blob=blob, compression=Compression.NONE, digest=sha256(blob), diff_id=sha256(blob))
        changed = f"{repository}:changed"
        config = ImageConfig(cmd=("x",), created=0)
        write_image(
            ImageReference.parse(f"docker-daemon:{changed}"), config=config, layers=[*image.layers, top],
            workdir=tmp_path, overwrite=True,
        ).commit()  # fmt: skip
    compare(changed, run, tmp_path)
    with opened(f"docker-daemon:{changed}", tmp_path) as image:
        assert image.root.lookup("/etc/removed") is None
        assert image.root.children("/etc/opaque") == ["new"]
        assert image.root.children("/usr") == []
        assert image.root.resolve("/etc/a").link_group == image.root.resolve("/etc/b").link_group != 0


def test_a_missing_image_names_the_remedies(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image sconify-test-image/missing:latest") as caught:
        opened("docker-daemon:sconify-test-image/missing", tmp_path)
    assert "docker pull" in (caught.value.remedy or "")
    assert "docker-archive:PATH" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []


def test_an_engine_that_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    with pytest.raises(
        ServiceError, match=f"the Docker engine at unix://{tmp_path}/nobody.sock can't be reached"
    ) as caught:
        opened("docker-daemon:debian", tmp_path)
    assert "systemctl start docker" in (caught.value.remedy or "")
    assert list(tmp_path.iterdir()) == []
