"""Layouts and archives as sources: what is read, and what hostile ones get."""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sconify.errors import SconifyError, UntrustedDataError, UserError
from sconify.image.reference import ImageReference
from sconify.image.source import Image, open_image
from sconify.image.verification import Verification

Maker = Callable[..., tuple[tarfile.TarInfo, bytes]]
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


def opened(text: str, tmp_path: Path) -> Image:
    workdir = tmp_path / "work"
    workdir.mkdir(exist_ok=True)
    return open_image(ImageReference.parse(text), workdir=workdir)


def refuse(text: str, tmp_path: Path, kind: type[SconifyError], match: str) -> None:
    with pytest.raises(kind, match=match):
        opened(text, tmp_path)
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture
def plain(archive: Callable[..., bytes], member: Maker) -> bytes:
    return archive([member("etc/hello", content=b"hello")])


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


def gzipped(data: bytes) -> bytes:
    """Compress without the time, so that the same data give the same bytes."""
    return gzip.compress(data, mtime=0)


@pytest.mark.parametrize(
    ("compress", "layer_type", "manifest_type"),
    [
        (bytes, LAYER, None),
        (gzipped, LAYER + "+gzip", None),
        (lambda data: gzipped(data[:700]) + gzipped(data[700:]), LAYER + "+gzip", None),
        (zstd, LAYER + "+zstd", None),
        (lambda data: zstd(data[:700]) + zstd(data[700:]), LAYER + "+zstd", None),
        (gzipped, DOCKER_LAYER, DOCKER_MANIFEST),
        (bytes, LAYER + "+gzip", None),
    ],
)
def test_layouts_in_every_compression(
    layout: Any,
    plain: bytes,
    tmp_path: Path,
    compress: Callable[[bytes], bytes],
    layer_type: str,
    manifest_type: str | None,
) -> None:
    options = {"manifest_type": manifest_type} if manifest_type else {}
    entry = layout.image([(compress(plain), plain)], layer_type=layer_type, **options)
    layout.index(entry)
    with opened(f"oci:{layout.path}", tmp_path) as image:
        assert image.root.read(image.root.resolve("/etc/hello"), 9) == b"hello"
        assert image.digest == entry["digest"]
        assert image.size == len(plain)
        assert image.layers[0].blob.source.read_bytes() == compress(plain)
    assert list((tmp_path / "work").iterdir()) == []


def test_dropped_contents_are_those_of_compressed_layers(
    layout: Any, plain: bytes, archive: Callable[..., bytes], member: Maker, tmp_path: Path
) -> None:
    other = archive([member("etc/other", content=b"other")])
    layout.index(layout.image([(plain, plain), (gzipped(other), other)]))
    with opened(f"oci:{layout.path}", tmp_path) as image:
        scratch = list((tmp_path / "work").rglob("*.tar"))
        assert [file.read_bytes() for file in scratch] == [other]
        image.drop_contents()
        assert not list((tmp_path / "work").rglob("*.tar"))
        assert image.root.read(image.root.resolve("/etc/hello"), 9) == b"hello"
        assert image.layers[1].blob.source.read_bytes() == gzipped(other)


@pytest.mark.parametrize("list_type", [OCI_INDEX, DOCKER_LIST])
def test_the_image_for_this_platform_is_chosen(layout: Any, plain: bytes, tmp_path: Path, list_type: str) -> None:
    other = layout.image([])
    ours = layout.image([(plain, plain)])
    manifests = [
        {**other, "platform": {"os": "unknown", "architecture": "unknown"}},
        {**other, "platform": {"os": "linux", "architecture": "arm64"}},
        {**ours, "platform": {"os": "linux", "architecture": "amd64"}},
    ]
    layout.index(layout.document({"schemaVersion": 2, "mediaType": list_type, "manifests": manifests}, list_type))
    assert opened(f"oci:{layout.path}", tmp_path).digest == ours["digest"]
    layout.index(layout.document({"schemaVersion": 2, "mediaType": list_type, "manifests": manifests[:2]}, list_type))
    with pytest.raises(UserError, match=r"only for: unknown/unknown, linux/arm64"):
        opened(f"oci:{layout.path}", tmp_path)


def test_tags_and_digests_select(layout: Any, plain: bytes, tmp_path: Path) -> None:
    one, two = layout.image([]), layout.image([(plain, plain)])
    name = "org.opencontainers.image.ref.name"
    layout.index({**one, "annotations": {name: "one"}}, {**two, "annotations": {name: "latest"}})
    assert opened(f"oci:{layout.path}:one", tmp_path).digest == one["digest"]
    assert opened(f"oci:{layout.path}", tmp_path).digest == two["digest"]
    assert opened(f"oci:{layout.path}@{one['digest']}", tmp_path).digest == one["digest"]
    with pytest.raises(UserError, match="its tags are: latest, one"):
        opened(f"oci:{layout.path}:three", tmp_path)


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
@pytest.mark.parametrize("position", [0, 3, 15, -30, -1])
def test_a_flipped_bit_in_a_layer_is_refused(
    layout: Any, plain: bytes, tmp_path: Path, compress: Callable[[bytes], bytes], position: int
) -> None:
    stored = compress(plain)
    layout.index(layout.image([(stored, plain)]))
    [blob] = [path for path in layout.path.glob("blobs/sha256/*") if path.read_bytes() == stored]
    spoiled = bytearray(stored)
    spoiled[position] ^= 1
    blob.write_bytes(spoiled)
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, f"layer sha256:{blob.name} of oci:.*(changed|not valid)")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_a_truncated_layer_is_refused(
    layout: Any, plain: bytes, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    stored = compress(plain)
    layout.index(layout.image([(stored, plain)]))
    [blob] = [path for path in layout.path.glob("blobs/sha256/*") if path.read_bytes() == stored]
    blob.write_bytes(stored[:-20])
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, f"blob sha256:{blob.name} has .* expected {len(stored)}")


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_stream_cut_before_it_was_published_is_refused(
    layout: Any, plain: bytes, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    layout.index(layout.image([(compress(plain)[:-12], plain)]))
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, "layer sha256:.* of oci:")


def test_a_wrong_diff_id_is_refused(layout: Any, plain: bytes, tmp_path: Path) -> None:
    wrong = "sha256:" + "0" * 64
    layout.index(layout.image([(gzip.compress(plain), plain)], diff_ids=[wrong]))
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, f"uncompressed archive is .*, expected {wrong}")


@pytest.mark.parametrize(
    ("layer_type", "match"),
    [
        (LAYER + "+gzip+encrypted", "is encrypted"),
        ("application/wasm", "media type 'application/wasm'"),
    ],
)
def test_layers_that_cannot_be_read_are_refused(
    layout: Any, plain: bytes, tmp_path: Path, layer_type: str, match: str
) -> None:
    layout.index(layout.image([(plain, plain)], layer_type=layer_type))
    refuse(f"oci:{layout.path}", tmp_path, UserError, match)


FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
)


def test_an_image_can_be_used_before_its_layers_are_verified(layout: Any, plain: bytes, tmp_path: Path) -> None:
    """A changed file is read; that it was changed comes out in the end."""
    layout.index(layout.image([(plain, plain), (gzipped(plain), plain)]))
    file = layout.file(f"sha256:{hashlib.sha256(plain).hexdigest()}")
    before, _, after = plain.rpartition(b"hello")
    for content, is_right in ((plain, True), (before + b"world" + after, False)):
        file.write_bytes(content)
        with Verification() as verification:
            reference = ImageReference.parse(f"oci:{layout.path}")
            with open_image(reference, workdir=tmp_path, verification=verification) as image:
                assert image.layers[0].diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
                if is_right:
                    verification.confirm()
                    continue
                for confirm in (verification.confirm, verification.raise_mismatch):
                    with pytest.raises(UntrustedDataError, match=f"layer sha256:{file.name} of .* was changed"):
                        confirm()


def test_a_changed_layer_explains_why_it_can_not_be_read(layout: Any, plain: bytes, tmp_path: Path) -> None:
    layout.index(layout.image([(plain, plain)]))
    layout.file(f"sha256:{hashlib.sha256(plain).hexdigest()}").write_bytes(b"x" * len(plain))
    reference = ImageReference.parse(f"oci:{layout.path}")
    with Verification() as verification, pytest.raises(UntrustedDataError, match="was changed: its digest is"):
        open_image(reference, workdir=tmp_path, verification=verification)


def test_a_compressed_layer_is_verified_at_once(layout: Any, plain: bytes, tmp_path: Path) -> None:
    layout.index(layout.image([(gzipped(plain.replace(b"hello", b"world")), plain)]))
    reference = ImageReference.parse(f"oci:{layout.path}")
    with Verification() as verification, pytest.raises(UntrustedDataError, match="was changed"):
        open_image(reference, workdir=tmp_path, verification=verification)
    assert list(tmp_path.glob("source-*")) == []


@pytest.mark.parametrize("layer_type", FOREIGN)
def test_layers_that_are_kept_elsewhere(layout: Any, plain: bytes, tmp_path: Path, layer_type: str) -> None:
    """One that is in the layout all the same is taken, one that is not is refused."""
    stored = gzip.compress(plain, mtime=0)
    layout.index(layout.image([(stored, plain)], layer_type=layer_type))
    with open_image(ImageReference.parse(f"oci:{layout.path}"), workdir=tmp_path) as image:
        assert image.layers[0].size == len(stored)
    layout.file(f"sha256:{hashlib.sha256(stored).hexdigest()}").unlink()
    refuse(f"oci:{layout.path}", tmp_path, UserError, "kept elsewhere: it does not say where")


def test_changed_documents_are_refused(layout: Any, plain: bytes, tmp_path: Path) -> None:
    entry = layout.image([(plain, plain)])
    layout.index(entry)
    manifest = layout.file(entry["digest"])
    config = layout.file(json.loads(manifest.read_text())["config"]["digest"])
    for file in (config, manifest):
        good = file.read_bytes()
        file.write_bytes(good.replace(b"m", b"n", 1))
        refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, f"sha256:{file.name} was changed")
        file.write_bytes(good)
    manifest.unlink()
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, f"lacks the blob sha256:{manifest.name}")


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        ({"digest": "sha256:../../../etc/passwd", "size": 3}, "is no digest"),
        ({"digest": "md5:abc", "size": 3}, "is no digest"),
        ({"digest": "sha256:" + "a" * 64}, "no descriptor"),
        ("text", "no descriptor"),
        ({"digest": "sha256:" + "a" * 64, "size": "3"}, "no descriptor"),
    ],
)
def test_malformed_indexes_are_refused(layout: Any, tmp_path: Path, entry: Any, match: str) -> None:
    layout.index(entry)
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, match)


def test_indexes_nested_in_themselves_are_refused(layout: Any, plain: bytes, tmp_path: Path) -> None:
    entry = layout.image([(plain, plain)])
    for _ in range(6):
        entry = {**entry, "platform": {"os": "linux", "architecture": "amd64"}}
        entry = layout.document({"mediaType": OCI_INDEX, "manifests": [entry]}, OCI_INDEX)
    layout.index(entry)
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, "nested deeper")


def test_what_is_no_layout_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "work").mkdir()
    refuse(f"oci:{tmp_path}/missing", tmp_path, UserError, "is no directory")
    refuse(f"oci:{tmp_path}/empty", tmp_path, UserError, "no index.json")
    refuse(f"docker-archive:{tmp_path}/missing", tmp_path, UserError, "is no file")
    refuse(f"docker-archive:{tmp_path}/file", tmp_path, UntrustedDataError, "docker-archive:.*file is not a valid tar")


@pytest.fixture
def docker_archive(archive: Callable[..., bytes], member: Maker, tmp_path: Path) -> Callable[..., str]:
    """Write an archive as ``docker save`` does: two layers, the second a link to the first. Return its reference."""

    def write(
        layer: bytes, *, config: Any = None, manifest: Any = None, compress: Callable[[bytes], bytes] = bytes
    ) -> str:
        diff_id = f"sha256:{hashlib.sha256(layer).hexdigest()}"
        document = json.dumps(config or {"os": "linux", "rootfs": {"diff_ids": [diff_id, diff_id]}}).encode()
        name = f"{hashlib.sha256(document).hexdigest()}.json"
        default = [{"Config": name, "RepoTags": ["a/b:1"], "Layers": ["1/layer.tar", "2/layer.tar"]}]
        members = [
            member("1/layer.tar", content=layer),
            member("2/layer.tar", tarfile.SYMTYPE, linkname="../1/layer.tar"),
            member(name, content=document),
            member("manifest.json", content=json.dumps(manifest or default).encode()),
        ]
        (tmp_path / "saved").write_bytes(compress(archive(members)))
        return f"docker-archive:{tmp_path}/saved"

    return write


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_archives_of_docker(
    docker_archive: Callable[..., str], plain: bytes, tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    text = docker_archive(plain, compress=compress)
    for reference in (text, f"{text}:a/b:1", f"{text}:docker.io/a/b:1"):
        with opened(reference, tmp_path) as image:
            assert image.root.read(image.root.resolve("/etc/hello"), 9) == b"hello"
            assert len(image.layers) == 2
            assert image.digest is None
    refuse(f"{text}:other", tmp_path, UserError, "no image other:latest; its names are: a/b:1")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd])
def test_archives_of_docker_since_version_25(
    layout: Any, plain: bytes, archive: Callable[..., bytes], member: Maker, tmp_path: Path,
    compress: Callable[[bytes], bytes],
) -> None:  # fmt: skip
    """They are OCI layouts as well, and with containerd's image store their layers are compressed."""
    entry = layout.image([(compress(plain), plain)])
    layout.index(entry)
    manifest = json.loads(layout.file(entry["digest"]).read_text())
    names = [
        f"blobs/sha256/{item['digest'].removeprefix('sha256:')}" for item in [manifest["config"], *manifest["layers"]]
    ]
    docker = [{"Config": names[0], "RepoTags": ["a/b:1"], "Layers": names[1:]}]
    files = [path for path in sorted(layout.path.rglob("*")) if path.is_file()]
    members = [member(str(path.relative_to(layout.path)), content=path.read_bytes()) for path in files]
    members.append(member("manifest.json", content=json.dumps(docker).encode()))
    (tmp_path / "saved").write_bytes(archive(members))
    with opened(f"docker-archive:{tmp_path}/saved:a/b:1", tmp_path) as image:
        assert image.id == manifest["config"]["digest"]
        assert image.root.read(image.root.resolve("/etc/hello"), 9) == b"hello"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"manifest": {"a": 1}}, "not a list of images"),
        ({"manifest": [{"Config": "x.json", "Layers": []}]}, "lacks the file 'x.json'"),
        ({"manifest": [{"Config": "../../etc/passwd", "Layers": []}]}, "lacks the file"),
        ({"config": {"rootfs": {"diff_ids": []}}}, "has 2 layers, its configuration .* 0"),
        ({"config": {"rootfs": {"diff_ids": ["sha256:" + "0" * 64] * 2}}}, "was changed"),
    ],
)
def test_malformed_archives_are_refused(
    docker_archive: Callable[..., str], plain: bytes, tmp_path: Path, options: dict[str, Any], match: str
) -> None:
    refuse(docker_archive(plain, **options), tmp_path, UntrustedDataError, match)


def test_a_configuration_that_does_not_fit_its_name_is_refused(
    docker_archive: Callable[..., str], plain: bytes, tmp_path: Path
) -> None:
    text = docker_archive(plain)
    file = tmp_path / "saved"
    file.write_bytes(file.read_bytes().replace(b'"linux"', b'"linuy"'))
    refuse(text, tmp_path, UntrustedDataError, "the configuration .* was changed")


def test_an_archive_of_several_images_needs_a_name(
    docker_archive: Callable[..., str], plain: bytes, tmp_path: Path
) -> None:
    text = docker_archive(plain, manifest=[{"Config": "a", "RepoTags": [name]} for name in ("a:1", "b:1")])
    refuse(text, tmp_path, UserError, "has 2 images; its names are: a:1, b:1")


def test_hostile_entries_in_a_layer_are_refused(
    layout: Any, archive: Callable[..., bytes], member: Maker, tmp_path: Path
) -> None:
    hostile = archive([member("../../etc/passwd", content=b"root::0:0")])
    layout.index(layout.image([(hostile, hostile)]))
    refuse(f"oci:{layout.path}", tmp_path, UntrustedDataError, r"layer sha256:.* entry '../../etc/passwd' climbs")


def test_progress_reaches_the_total(layout: Any, plain: bytes, tmp_path: Path) -> None:
    layout.index(layout.image([(plain, plain)] * 3))
    calls: list[tuple[str, int, int | None]] = []
    open_image(
        ImageReference.parse(f"oci:{layout.path}"), workdir=tmp_path, progress=lambda *call: calls.append(call)
    ).close()
    assert [step for step, _, _ in calls] == [f"read oci:{layout.path}", "verify layers"]
