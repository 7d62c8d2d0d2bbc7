"""A disk that is full: an error that names it, and no residue. The disk is a small tmpfs."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sconify.errors import ServiceError
from sconify.image.compression import Compression
from sconify.image.layer_writer import LayerWriter
from sconify.image.publication import StagedImage
from sconify.image.reference import ImageReference
from sconify.image.source import open_image

Stage = Callable[..., StagedImage]
CONTENT = random.Random(7).randbytes(3_000_000)


@pytest.mark.parametrize("form", ["oci:{}/out", "docker-archive:{}/out.tar", "oci-archive:{}/out.tar"])
def test_sinks(full: Path, stage: Stage, form: str) -> None:
    with pytest.raises(ServiceError, match=f"no space is left in {full}") as caught:
        stage(form.format(full), content=CONTENT)
    assert "free space" in (caught.value.remedy or "")
    assert list(full.iterdir()) == []


def test_a_layer(full: Path) -> None:
    writer = LayerWriter(full / "layer")
    writer.add_bytes("/a", CONTENT)
    with pytest.raises(ServiceError, match=f"no space is left in {full}"):
        writer.finish()
    assert list(full.iterdir()) == []


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_decompressing_a_source(full: Path, tmp_path: Path, stage: Stage, compression: Compression) -> None:
    stage(f"oci:{tmp_path}/source", content=CONTENT, compression=compression).commit()
    with pytest.raises(ServiceError, match="no space is left"):
        open_image(ImageReference.parse(f"oci:{tmp_path}/source"), workdir=full)
    assert list(full.iterdir()) == []


def test_a_compressed_archive(full: Path, tmp_path: Path, stage: Stage) -> None:
    stage(f"docker-archive:{tmp_path}/source.tar", content=CONTENT).commit()
    (tmp_path / "source.tar.gz").write_bytes(gzip.compress((tmp_path / "source.tar").read_bytes()))
    with pytest.raises(ServiceError, match="no space is left"):
        open_image(ImageReference.parse(f"docker-archive:{tmp_path}/source.tar.gz"), workdir=full)
    assert list(full.iterdir()) == []


@pytest.mark.docker
@pytest.mark.parametrize("form", ["docker-daemon:", ""])
def test_saving_from_the_engine(full: Path, stage: Stage, repository: str, form: str) -> None:
    stage(f"docker-daemon:{repository}:large", content=CONTENT, overwrite=True).commit()
    with pytest.raises(ServiceError, match="no space is left"):
        open_image(ImageReference.parse(f"{form}{repository}:large"), workdir=full)
    assert list(full.iterdir()) == []
