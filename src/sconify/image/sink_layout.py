"""Write images into OCI image layouts."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sconify.errors import UntrustedDataError, UserError
from sconify.image.compression import iterate, write_all
from sconify.image.config import canonical_json, parse_json
from sconify.image.layout import OCI_INDEX, OCI_MANIFEST, REF_NAME
from sconify.image.model import Extent
from sconify.image.publication import NewImage, StagedImage, descriptor
from sconify.image.reference import ImageReference
from sconify.image.storage import reading, writing

_STAGING = ".staging-"
LAYOUT_FILE = canonical_json({"imageLayoutVersion": "1.0.0"})


def blob_name(digest: str) -> str:
    """Return where a layout keeps a blob."""
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"


def index_of(image: NewImage, tag: str) -> dict[str, Any]:
    """Return the index of a layout with this image alone."""
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [index_entry(image, tag)]}


def index_entry(image: NewImage, tag: str) -> dict[str, Any]:
    """Return an image's descriptor in a layout's index."""
    return {
        **descriptor(OCI_MANIFEST, image.manifest),
        "annotations": {REF_NAME: tag},
        "platform": {"architecture": "amd64", "os": "linux"},
    }


def layout_has(path: Path, tag: str) -> bool:
    """Tell whether a layout has an image of that tag.

    Raises:
        UserError: ``path`` is there and is no layout.
        UntrustedDataError: Its index is malformed.
    """
    if not path.exists():
        return False
    if path.is_dir() and all(file.name.startswith(_STAGING) for file in path.iterdir()):
        return False
    return any(_tag_of(item) == tag for item in _read_index(path)["manifests"])


def _tag_of(item: object) -> object:
    annotations = item.get("annotations") if isinstance(item, dict) else None
    return annotations.get(REF_NAME) if isinstance(annotations, dict) else None


def _read_index(path: Path) -> dict[str, Any]:
    file = path / "index.json"
    if not file.is_file():
        raise UserError(f"{path} is not empty and is no OCI image layout", remedy="give another directory")
    with reading(file):
        index = parse_json(file.read_bytes(), label=str(file))
    if not isinstance(index.get("manifests"), list):
        raise UntrustedDataError(f"{file} has no list of manifests")
    return index


class StagedLayout(StagedImage):
    """The blobs lie in a hidden directory of the layout until they are renamed into place."""

    def __init__(
        self, reference: ImageReference, image: NewImage, *, overwrite: bool, workdir: Path | None = None
    ) -> None:
        """Write all blobs.

        Args:
            reference: The layout and the tag.
            image: What is written.
            overwrite: Whether the tag may be taken from another image.
            workdir: A directory whose files are ours and don't change any more: on the same disk they are linked
                instead of copied.

        Raises:
            UserError: The directory can't be written.
            ServiceError: The disk is full.
        """
        super().__init__(reference, image)
        assert reference.path is not None
        self._path = reference.path
        self._tag = reference.tag or "latest"
        self._overwrite = overwrite
        self._workdir = workdir
        self._made = not self._path.exists()
        self._staging: Path | None = None
        try:
            self._stage()
        except BaseException as error:
            self.abort_after(error)
            raise

    def _stage(self) -> None:
        with writing(self._path):
            self._path.mkdir(exist_ok=True)
            self._staging = Path(tempfile.mkdtemp(prefix=_STAGING, dir=self._path))
        for layer in self.image.layers:
            self._write(layer.digest, layer.blob)
        self._write(self.image.id, self.image.config)
        self._write(self.image.digest, self.image.manifest)

    def _write(self, digest: str, content: Extent | bytes) -> None:
        assert self._staging is not None
        file = self._staging / digest.removeprefix("sha256:")
        if file.exists():
            return  # the image has this layer twice
        if isinstance(content, bytes) or not self._linked(content, file):
            write_file(file, content)

    def _linked(self, content: Extent, file: Path) -> bool:
        """Give a whole file of the working directory one more name; return whether that was possible."""
        if self._workdir is None or not content.source.is_relative_to(self._workdir):
            return False
        if content.offset or content.size != content.source.stat().st_size:
            return False
        try:
            file.hardlink_to(content.source)
        except OSError:
            return False
        with writing(file):
            file.chmod(0o644)
            descriptor_ = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor_)
            finally:
                os.close(descriptor_)
        return True

    def _publish(self) -> None:
        assert self._staging is not None
        with writing(self._path), _locked(self._path):
            if (self._path / "index.json").exists():
                index = _read_index(self._path)
                taken = [item for item in index["manifests"] if _tag_of(item) == self._tag]
                if taken and not self._overwrite:
                    raise UserError(f"{self.reference} was made by someone else meanwhile", remedy="give --overwrite")
                kept = [item for item in index["manifests"] if _tag_of(item) != self._tag]
                index = {**index, "manifests": [*kept, index_entry(self.image, self._tag)]}
            else:
                index = index_of(self.image, self._tag)
            write_file(self._staging / "oci-layout", LAYOUT_FILE)
            write_file(self._staging / "index.json", json.dumps(index, sort_keys=True, separators=(",", ":")).encode())
            blobs = self._path / "blobs" / "sha256"
            blobs.mkdir(parents=True, exist_ok=True)
            names = {layer.digest for layer in self.image.layers} | {self.image.id, self.image.digest}
            for digest in names:
                name = digest.removeprefix("sha256:")
                (self._staging / name).rename(blobs / name)
            (self._staging / "oci-layout").rename(self._path / "oci-layout")
            (self._staging / "index.json").rename(self._path / "index.json")
            self._staging.rmdir()

    def _discard(self) -> None:
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
        if self._made and self._path.is_dir() and not any(self._path.iterdir()):
            self._path.rmdir()


def write_file(path: Path, content: Extent | bytes) -> None:
    """Write a new file and bring it to the disk.

    Raises:
        UserError: The content can't be read, or the path not be written.
        ServiceError: The disk is full.
    """
    with writing(path):
        descriptor_ = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for chunk in (content,) if isinstance(content, bytes) else iterate(content):
            with writing(path):
                write_all(descriptor_, chunk)
        with writing(path):
            os.fsync(descriptor_)
    finally:
        os.close(descriptor_)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Keep other runs of ours from changing the index between our reading and writing it."""
    lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
