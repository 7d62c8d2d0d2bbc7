"""Sinks that are files: staged, then published whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sconify.errors import UntrustedDataError, UserError
from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.layer_writer import LayerWriter
from sconify.image.publication import StagedImage, WrittenImage
from sconify.image.reference import ImageReference
from sconify.image.sink import exists, write_image
from sconify.image.source import open_image

FILES = [
    "oci:{}/out",
    "oci:{}/out:v2",
    "docker-archive:{}/out.tar",
    "docker-archive:{}/out.tar:a/b:1",
    "oci-archive:{}/out.tar:v1",
]
Stage = Callable[..., StagedImage]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Stage an image with one file of the given content."""

    def make(
        text: str, *, content: bytes = b"hello", overwrite: bool = False, compression: Compression = Compression.NONE
    ) -> StagedImage:
        layer = make_layer(tmp_path, content, compression)
        config = ImageConfig(cmd=("/hello",), env={"A": "1"}, created=0)
        return write_image(
            ImageReference.parse(text), config=config, layers=[layer, layer], workdir=tmp_path, overwrite=overwrite
        )

    return make


def make_layer(tmp_path: Path, content: bytes, compression: Compression) -> Layer:
    writer = LayerWriter(tmp_path / f"layer-{compression.name}", compression=compression, epoch=0)
    writer.add_bytes("/hello", content)
    return writer.finish()


def content_of(text: str, tmp_path: Path) -> bytes:
    with open_image(ImageReference.parse(text), workdir=tmp_path) as image:
        assert image.config.cmd == ("/hello",)
        return image.root.read(image.root.resolve("/hello"), 100)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("compression", Compression)
def test_an_image_is_written_and_read_back(
    place: Path, tmp_path: Path, stage: Stage, form: str, compression: Compression
) -> None:
    text = form.format(place)
    with stage(text, compression=compression) as staged:
        assert not exists(ImageReference.parse(text))
        written = staged.commit()
    assert exists(ImageReference.parse(text))
    assert written.reference == ImageReference.parse(text)
    with open_image(ImageReference.parse(text), workdir=tmp_path) as image:
        assert (image.id, image.digest or written.digest) == (written.image_id, written.digest)
        assert sum(layer.size for layer in image.layers) == written.size
    assert content_of(text, tmp_path) == b"hello"
    assert not [path for path in place.rglob("*") if path.name.startswith(".")]


@pytest.mark.parametrize("form", FILES)
def test_the_same_input_gives_the_same_bytes(tmp_path: Path, stage: Stage, form: str) -> None:
    results = []
    for number in range(2):
        directory = tmp_path / str(number)
        directory.mkdir()
        written = stage(form.format(directory)).commit()
        results.append((written.digest, written.image_id, tree(directory)))
    assert results[0] == results[1]


@pytest.mark.parametrize("form", FILES)
def test_an_aborted_image_leaves_no_trace(place: Path, stage: Stage, form: str) -> None:
    stage(form.format(place)).abort()
    assert list(place.iterdir()) == []


def commit_and_fail(stage: Stage, text: str, error: type[BaseException]) -> None:
    with stage(text):
        raise error


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_aborts(place: Path, stage: Stage, form: str, error: type[BaseException]) -> None:
    with pytest.raises(error):
        commit_and_fail(stage, form.format(place), error)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("form", FILES)
def test_a_taken_name_is_refused_before_any_work(place: Path, stage: Stage, form: str) -> None:
    stage(form.format(place)).commit()
    before = tree(place)
    with pytest.raises(UserError, match="exists already") as caught:
        stage(form.format(place), content=b"new")
    assert "--overwrite" in (caught.value.remedy or "")
    assert tree(place) == before


@pytest.mark.parametrize("form", FILES)
def test_a_name_may_be_taken_over_when_asked(place: Path, tmp_path: Path, stage: Stage, form: str) -> None:
    stage(form.format(place)).commit()
    staged = stage(form.format(place), content=b"new", overwrite=True)
    assert content_of(form.format(place), tmp_path) == b"hello"
    staged.commit()
    assert content_of(form.format(place), tmp_path) == b"new"


@pytest.mark.parametrize("form", FILES)
def test_a_name_that_was_taken_meanwhile_is_refused(place: Path, tmp_path: Path, stage: Stage, form: str) -> None:
    first, second = stage(form.format(place)), stage(form.format(place), content=b"second")
    first.commit()
    before = {name: data for name, data in tree(place).items() if "/." not in f"/{name}"}
    with pytest.raises(UserError, match="was made by someone else meanwhile"), second:
        second.commit()
    assert tree(place) == before
    assert content_of(form.format(place), tmp_path) == b"hello"


def test_images_of_other_tags_stay(place: Path, tmp_path: Path, stage: Stage) -> None:
    stage(f"oci:{place}:one").commit()
    staged = stage(f"oci:{place}:two", content=b"two")
    stage(f"oci:{place}:three", content=b"three").commit()
    staged.commit()
    assert [content_of(f"oci:{place}:{tag}", tmp_path) for tag in ("one", "two", "three")] == [
        b"hello",
        b"two",
        b"three",
    ]


def test_blobs_that_another_image_shares_stay_after_an_abort(place: Path, tmp_path: Path, stage: Stage) -> None:
    stage(f"oci:{place}:one").commit()
    stage(f"oci:{place}:two").abort()
    assert content_of(f"oci:{place}:one", tmp_path) == b"hello"


def test_directories_that_are_no_layout_are_refused(place: Path, stage: Stage) -> None:
    (place / "file").write_text("precious")
    with pytest.raises(UserError, match="no OCI image layout"):
        stage(f"oci:{place}")
    with pytest.raises(UserError, match="missing"):
        stage(f"docker-archive:{place}/missing/out.tar")
    with pytest.raises(UserError, match="missing"):
        stage(f"oci:{place}/missing/out")
    assert tree(place) == {"file": b"precious"}


def test_a_malformed_index_is_refused(place: Path, stage: Stage) -> None:
    (place / "index.json").write_text(json.dumps({"manifests": 7}))
    with pytest.raises(UntrustedDataError, match="no list of manifests"):
        stage(f"oci:{place}")


def test_a_digest_is_no_destination(stage: Stage) -> None:
    with pytest.raises(UserError, match="by its digest"):
        stage("name@sha256:" + "0" * 64)


def test_layers_of_an_opened_image_can_be_written_again(place: Path, tmp_path: Path, stage: Stage) -> None:
    stage(f"docker-archive:{place}/first.tar", compression=Compression.ZSTD).commit()
    with open_image(ImageReference.parse(f"docker-archive:{place}/first.tar"), workdir=tmp_path) as image:
        written = write_image(
            ImageReference.parse(f"oci:{place}/second"), config=image.config, layers=image.layers, workdir=tmp_path,
            overwrite=False,
        ).commit()  # fmt: skip
        assert written.image_id == image.id
    assert content_of(f"oci:{place}/second", tmp_path) == b"hello"


def test_other_people_may_read_what_was_written(place: Path, stage: Stage) -> None:
    written: WrittenImage = stage(f"docker-archive:{place}/out.tar").commit()
    assert written.reference.path is not None
    assert written.reference.path.stat().st_mode & 0o777 == 0o666 & ~current_umask()
    stage(f"oci:{place}/layout").commit()
    assert {path.stat().st_mode & 0o777 for path in (place / "layout").rglob("*") if path.is_file()} == {
        0o666 & ~current_umask()
    }


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
