"""Real images, made by a real Docker engine, for real tools."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.layer_writer import LayerWriter
from sconify.image.publication import StagedImage
from sconify.image.reference import ImageReference
from sconify.image.sink import write_image

Run = Callable[..., str]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a command and return what it prints; with ``check=False`` it may fail."""

    def call(*command: object, check: bool = True) -> str:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout.strip()

    return call


@pytest.fixture(scope="session")
def repository(run: Run) -> Iterator[str]:
    """A name of our own in the Docker engine; all its tags are removed at the end."""
    name = f"sconify-test-image/{uuid.uuid4().hex[:12]}"
    yield name
    tags = run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}", name).split()
    if tags:
        run("docker", "rmi", "-f", *tags)


@pytest.fixture(scope="session")
def layered_image(repository: str, run: Run, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Several layers with all that a layer can have, from a tar archive and ``docker build``, without a registry."""
    directory = tmp_path_factory.mktemp("layered")
    root = directory / "root"
    for name in ("bin", "etc/opaque/deep", "etc/removed/x", "usr/lib", "var/tmp", "dev", "data"):
        (root / name).mkdir(parents=True)
    run("cp", Path("/bin/busybox") if Path("/bin/busybox").exists() else "/usr/bin/true", root / "bin/program")
    (root / "etc/file").write_text("one")
    (root / "etc/opaque/deep/old").write_text("old")
    (root / "etc/removed/x/y").write_text("gone")
    (root / "etc/linked").hardlink_to(root / "etc/file")
    (root / "usr/lib" / ("long-" * 30)).write_text("long name")
    (root / "usr/lib/\u00e4\u00f6\u4e2d").write_text("not ascii")
    (root / "lib").symlink_to("usr/lib")
    (root / "var/tmp").chmod(0o1777)
    (root / "bin/program").chmod(0o4755)
    (root / "data/becomes-file").mkdir()
    (root / "data/becomes-file/inner").write_text("x")
    (root / "data/becomes-directory").write_text("x")
    run("mkfifo", root / "dev/fifo")
    run("mknod", root / "dev/null", "c", 1, 3)
    run("mknod", root / "dev/block", "b", 7, 9)
    run("setcap", "cap_net_raw+ep", root / "bin/program", check=False)
    run("chown", "-h", "1234:5678", root / "lib", root / "etc/file")
    run("touch", "-d", "2001-02-03T04:05:06.789", root / "etc/file", root / "usr/lib")
    archive = directory / "root.tar"
    run("tar", "-C", root, "--format=posix", "--xattrs", "--xattrs-include=*", "-cf", archive, ".")
    base = f"{repository}:base"
    run("docker", "import", archive, base)
    context = directory / "context"
    (context / "new/deep").mkdir(parents=True)
    (context / "new/deep/file").write_text("two")
    (context / "file").write_text("replaced")
    (context / "Dockerfile").write_text(
        f"FROM {base}\n"
        "COPY file /etc/file\n"
        "COPY new /etc/opaque/\n"
        "COPY file /lib/through-link\n"
        "COPY --chown=42:43 new /made/parents/\n"
        "ENV GREETING=hello\n"
        'ENTRYPOINT ["/bin/program"]\n'
        "WORKDIR /work/here\n"
        "EXPOSE 80\n"
    )
    image = f"{repository}:layered"
    run("docker", "build", "-q", "-t", image, context)
    return image


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., StagedImage]:
    """Stage an image with one file of the given content."""

    def make(
        text: str, *, content: bytes = b"hello", overwrite: bool = False, compression: Compression = Compression.NONE
    ) -> StagedImage:
        writer = LayerWriter(tmp_path / "layer", compression=compression, epoch=0)
        writer.add_bytes("/hello", content)
        config = ImageConfig(cmd=("/hello",), env={"A": "1"}, created=0)
        return write_image(
            ImageReference.parse(text), config=config, layers=[writer.finish()], workdir=tmp_path, overwrite=overwrite
        )

    return make


@pytest.fixture
def full(run: Run, tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    path = tmp_path / "full"
    path.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path)
    yield path
    run("umount", path)
