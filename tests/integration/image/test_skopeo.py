"""Images that skopeo made of the engine's, and images of ours that skopeo reads; a registry and podman's store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sconify.errors import ServiceError, UserError
from sconify.image.compression import Compression
from sconify.image.publication import StagedImage
from sconify.image.reference import ImageReference, Transport
from sconify.image.sink import exists
from sconify.image.source import open_image
from tests.registries import registry as serve

pytestmark = pytest.mark.docker
Run = Callable[..., str]
Stage = Callable[..., StagedImage]


def index_of(text: str, workdir: Path) -> dict[str, tuple[object, ...]]:
    """Everything but where the bytes are."""
    with open_image(ImageReference.parse(text), workdir=workdir) as image:
        return {
            entry.path: (
                entry.type, entry.mode, entry.uid, entry.gid, entry.mtime, entry.mtime_nsec, entry.target, entry.device,
                dict(entry.xattrs), bool(entry.link_group),
                image.root.read(entry, 10_000_000) if entry.content is not None else None,
            )
            for entry in image.root.walk()
        }  # fmt: skip


@pytest.fixture(scope="session")
def engine_index(layered_image: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[object, ...]]:
    return index_of(f"docker-daemon:{layered_image}", tmp_path_factory.mktemp("engine"))


@pytest.mark.parametrize(
    ("options", "form"),
    [
        (["--dest-compress-format=gzip"], "oci:{}/copy:tag"),
        (["--dest-compress-format=zstd"], "oci:{}/copy:tag"),
        (["--dest-oci-accept-uncompressed-layers"], "oci:{}/copy:tag"),
        ([], "oci-archive:{}/copy.tar:tag"),
        ([], "docker-archive:{}/copy.tar:some/name:tag"),
    ],
)
def test_copies_of_skopeo_are_the_same_image(
    layered_image: str, engine_index: object, run: Run, tmp_path: Path, options: list[str], form: str
) -> None:
    text = form.format(tmp_path)
    run("skopeo", "copy", "-q", *options, f"docker-daemon:{layered_image}", text)
    assert index_of(text, tmp_path) == engine_index


def test_a_compressed_archive_of_docker_save(
    layered_image: str, engine_index: object, run: Run, tmp_path: Path
) -> None:
    run("docker", "save", "-o", tmp_path / "saved.tar", layered_image)
    run("gzip", tmp_path / "saved.tar")
    assert index_of(f"docker-archive:{tmp_path}/saved.tar.gz", tmp_path) == engine_index


@pytest.mark.parametrize(
    "form", ["oci:{}/out:tag", "oci-archive:{}/out.tar:tag", "docker-archive:{}/out.tar:some/name:tag"]
)
@pytest.mark.parametrize("compression", Compression)
def test_skopeo_reads_what_we_write(
    run: Run, stage: Stage, tmp_path: Path, form: str, compression: Compression
) -> None:
    text = form.format(tmp_path)
    written = stage(text, compression=compression).commit()
    if not text.startswith("docker-archive:"):
        assert json.loads(run("skopeo", "inspect", text))["Digest"] == written.digest
    run("skopeo", "copy", "-q", text, f"dir:{tmp_path}/copy")
    assert json.loads((tmp_path / "copy/manifest.json").read_text())["config"]["digest"] == written.image_id


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry of our own, without TLS, which skopeo is told about."""
    directory = tmp_path_factory.mktemp("registry")
    with serve(directory) as address, pytest.MonkeyPatch.context() as patch:
        (directory / ".config/containers").mkdir(parents=True)
        (directory / ".config/containers/registries.conf").write_text(
            f'[[registry]]\nlocation = "{address}"\ninsecure = true\n'
        )
        patch.setenv("HOME", str(directory))
        yield address


def test_a_registry(registry: str, run: Run, stage: Stage, tmp_path: Path) -> None:
    text = f"docker://{registry}/some/name:v1"
    assert not exists(ImageReference.parse(text))
    with stage(text, compression=Compression.GZIP) as staged:
        assert not exists(ImageReference.parse(text))
        written = staged.commit()
    assert exists(ImageReference.parse(text))
    assert json.loads(run("skopeo", "inspect", text))["Digest"] == written.digest
    for source in (text, f"docker://{registry}/some/name@{written.digest}", f"{registry}/some/name:v1"):
        with open_image(ImageReference.parse(source), workdir=tmp_path) as image:
            assert image.reference.transport is Transport.REGISTRY
            assert image.id == written.image_id
            assert image.root.read(image.root.resolve("/hello"), 10) == b"hello"
    with pytest.raises(UserError, match="exists already"):
        stage(text, content=b"other")
    staged = stage(text, content=b"other", overwrite=True)
    assert json.loads(run("skopeo", "inspect", text))["Digest"] == written.digest
    staged.abort()
    assert json.loads(run("skopeo", "inspect", text))["Digest"] == written.digest


def test_a_registry_that_does_not_answer(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1/name"):
        stage("docker://127.0.0.1:1/name")
    with pytest.raises(ServiceError, match=r"127\.0\.0\.1:1/name"):
        open_image(ImageReference.parse("docker://127.0.0.1:1/name"), workdir=tmp_path)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store of podman's of our own."""
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n'
    )
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(tmp_path / "storage.conf"))


def stored(directory: Path) -> dict[str, list[str]]:
    """Return the names of the images in the store, by id."""
    images = json.loads((directory / "graph/vfs-images/images.json").read_text())
    return {image["id"]: image.get("names") or [] for image in images}


@pytest.mark.usefixtures("store")
def test_the_store_of_podman(stage: Stage, tmp_path: Path) -> None:
    text = "containers-storage:localhost/sconify-test:v1"
    with stage(text) as staged:
        assert not exists(ImageReference.parse(text))
        written = staged.commit()
    images = stored(tmp_path)
    assert images == {written.image_id.removeprefix("sha256:"): ["localhost/sconify-test:v1"]}
    for source in (text, "localhost/sconify-test:v1", "sconify-test:v1"):
        with open_image(ImageReference.parse(source), workdir=tmp_path) as image:
            assert image.reference.transport is Transport.CONTAINERS_STORAGE
            assert image.id == written.image_id
            assert image.root.read(image.root.resolve("/hello"), 10) == b"hello"
    stage("containers-storage:localhost/sconify-test:v2", content=b"other").abort()
    stage("containers-storage:localhost/sconify-test:v2").abort()
    assert stored(tmp_path) == images


@pytest.mark.usefixtures("store")
def test_a_full_disk_is_not_a_missing_image(stage: Stage, full: Path) -> None:
    stage("containers-storage:localhost/sconify-test:v1", content=random.Random(7).randbytes(3_000_000)).commit()
    with pytest.raises(ServiceError, match="no space left"):
        open_image(ImageReference.parse("sconify-test:v1"), workdir=full)


@pytest.mark.usefixtures("store")
def test_a_bare_name_that_nobody_knows(tmp_path: Path, registry: str) -> None:
    with pytest.raises(UserError, match=r"there is no image .*Docker engine has no image") as caught:
        open_image(ImageReference.parse(f"{registry}/not/there"), workdir=tmp_path)
    assert "docker pull" in (caught.value.remedy or "")
