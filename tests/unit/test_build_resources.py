from __future__ import annotations

from pathlib import Path

import pytest

from sconify.build_resources import build_resources, dockerfile_text
from sconify.errors import UserError
from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.layer_writer import LayerWriter
from sconify.image.reference import ImageReference


def layer(path: Path, compression: Compression) -> Layer:
    writer = LayerWriter(path, compression=compression, epoch=0)
    writer.add_bytes("/hello", b"hello")
    return writer.finish()


def test_nothing_is_there_before_the_end(tmp_path: Path) -> None:
    target = tmp_path / "out"
    layers = [layer(tmp_path / "a", Compression.ZSTD), layer(tmp_path / "b", Compression.NONE)]
    with build_resources(target, None) as resources:
        resources.write_session("secret")
        resources.write_context("FROM scratch\n", layers)
        assert not (target / "Dockerfile").exists()
        resources.commit()
    assert sorted(path.name for path in target.iterdir()) == [".dockerignore", "Dockerfile", "layers", "session.yml"]
    assert (
        (target / "layers/0.tar").read_bytes()
        == (target / "layers/1.tar").read_bytes()
        == (tmp_path / "b").read_bytes()
    )
    assert (target / "session.yml").stat().st_mode & 0o777 == 0o600
    assert "session.yml" in (target / ".dockerignore").read_text()


def test_what_fails_leaves_no_trace(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with build_resources(target, tmp_path / "s.yml") as resources:
        resources.write_session("secret")
        resources.write_context("FROM scratch\n", [layer(tmp_path / "a", Compression.NONE)])
        assert len(list(target.iterdir())) == 1
    assert list(target.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]


def test_a_place_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="can't be written"), build_resources(tmp_path / "file/x", None) as resources:
        resources.write_session("text")


def test_the_dockerfile_says_all_that_the_configuration_does() -> None:
    config = ImageConfig(
        entrypoint=("/bin/a b",),
        env={"A": 'x "$y" \\'},
        labels={"l": "v", "m": "a\nb"},
        exposed_ports=("80/tcp",),
        stop_signal="SIGINT",
        user="1000:2000",
    )
    assert dockerfile_text(config, base=ImageReference.parse("docker://alpine:3.10"), layers=2).splitlines()[1:] == [
        "FROM alpine:3.10",
        "ADD layers/0.tar /",
        "ADD layers/1.tar /",
        'ENV A="x \\"\\$y\\" \\\\"',
        'LABEL "l"="v"',
        '# The label "m" has a line break, which no Dockerfile can say.',
        "EXPOSE 80/tcp",
        "STOPSIGNAL SIGINT",
        'USER "1000:2000"',
        'ENTRYPOINT ["/bin/a b"]',
    ]
    assert "ARG BASE_IMAGE" in dockerfile_text(config, base=ImageReference.parse("oci:/x"), layers=0)
