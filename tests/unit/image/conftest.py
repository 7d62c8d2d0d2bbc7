"""Factories of archives, layers and layouts."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sconify.image.model import Extent
from sconify.image.rootfs import RootFileSystem

Members = Sequence[tuple[tarfile.TarInfo, bytes]]


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", **fields: Any
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def _archive(members: Members, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=format, errors="surrogateescape") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return output.getvalue()


@pytest.fixture(scope="session")
def member() -> Callable[..., tuple[tarfile.TarInfo, bytes]]:
    """Make one member: ``member(name, kind, content, **fields of TarInfo)``."""
    return _member


@pytest.fixture(scope="session")
def archive() -> Callable[..., bytes]:
    """Make an archive of members, with the standard library's writer."""
    return _archive


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[bytes], Extent]:
    """Put bytes into a file, not at its start."""
    counter = iter(range(10**6))

    def store(data: bytes) -> Extent:
        path = tmp_path / f"archive-{next(counter)}"
        path.write_bytes(b"#" * 1000 + data + b"#" * 512)
        return Extent(path, 1000, len(data))

    return store


@pytest.fixture
def merged(stored: Callable[[bytes], Extent], tmp_path: Path) -> Callable[..., RootFileSystem]:
    """Merge layers given as lists of members."""

    def merge(*layers: Members) -> RootFileSystem:
        extents = [(f"layer {number}", stored(_archive(members))) for number, members in enumerate(layers)]
        return RootFileSystem.from_layers(extents, workdir=tmp_path)

    return merge


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class LayoutFactory:
    """Builds an OCI layout whose parts a test may spoil before or after."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "blobs" / "sha256").mkdir(parents=True)
        (path / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.file(_digest(data)).write_bytes(data)
        return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}

    def document(self, document: object, media_type: str) -> dict[str, Any]:
        return self.blob(json.dumps(document).encode(), media_type)

    def file(self, name: str) -> Path:
        return self.path / "blobs" / "sha256" / name.removeprefix("sha256:")

    def image(
        self,
        layers: Sequence[tuple[bytes, bytes]],
        *,
        layer_type: str = "application/vnd.oci.image.layer.v1.tar",
        manifest_type: str = "application/vnd.oci.image.manifest.v1+json",
        diff_ids: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Add an image; each layer is its stored and its uncompressed bytes. Return the manifest's descriptor."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids or [_digest(plain) for _, plain in layers])},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": self.document(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.blob(data, layer_type) for data, _ in layers],
        }
        return self.document(manifest, manifest_type)

    def index(self, *entries: dict[str, Any]) -> None:
        (self.path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": list(entries)}))


@pytest.fixture
def layout(tmp_path: Path) -> LayoutFactory:
    return LayoutFactory(tmp_path / "layout")
