"""Write images as one file: archives of Docker and of OCI layouts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sconify.errors import UserError
from sconify.image.compression import write_all
from sconify.image.config import canonical_json
from sconify.image.model import Extent
from sconify.image.publication import NewImage, StagedImage
from sconify.image.reference import ImageReference, Transport
from sconify.image.sink_layout import LAYOUT_FILE, blob_name, index_of
from sconify.image.storage import writing
from sconify.image.tar_writer import END, MemberHeader, member_chunks


def docker_archive(image: NewImage, *, name: str | None) -> Iterator[bytes]:
    """Yield the archive that ``docker load`` reads (Docker image specification v1.2).

    Args:
        image: The image.
        name: ``NAME:TAG``, or None for an image without name.
    """
    config = f"{image.id.removeprefix('sha256:')}.json"
    manifest = [
        {
            "Config": config,
            "RepoTags": [name] if name else None,
            "Layers": [_layer_name(layer.digest) for layer in image.layers],
        }
    ]
    members: dict[str, Extent | bytes] = {_layer_name(layer.digest): layer.blob for layer in image.layers}
    members[config] = image.config
    members["manifest.json"] = canonical_json(manifest)
    return _archive(members)


def _layer_name(digest: str) -> str:
    return f"{digest.removeprefix('sha256:')}.tar"


def oci_archive(image: NewImage, *, tag: str) -> Iterator[bytes]:
    """Yield an archive of an OCI image layout."""
    members: dict[str, Extent | bytes] = {
        "oci-layout": LAYOUT_FILE,
        "index.json": canonical_json(index_of(image, tag)),
        blob_name(image.digest): image.manifest,
        blob_name(image.id): image.config,
        **{blob_name(layer.digest): layer.blob for layer in image.layers},
    }
    return _archive(members)


def _archive(members: dict[str, Extent | bytes]) -> Iterator[bytes]:
    for name, content in members.items():
        size = len(content) if isinstance(content, bytes) else content.size
        yield from member_chunks(MemberHeader(name=name.encode(), size=size), content)
    yield END


class StagedArchive(StagedImage):
    """The archive lies beside its destination under another name until it is renamed."""

    def __init__(self, reference: ImageReference, image: NewImage, *, overwrite: bool) -> None:
        """Write the whole archive.

        Raises:
            UserError: The directory can't be written.
            ServiceError: The disk is full.
        """
        super().__init__(reference, image)
        assert reference.path is not None
        self._path = reference.path
        self._overwrite = overwrite
        self._temporary: Path | None = None
        try:
            self._stage()
        except BaseException as error:
            self.abort_after(error)
            raise

    def _stage(self) -> None:
        if self.reference.transport is Transport.OCI_ARCHIVE:
            chunks = oci_archive(self.image, tag=self.reference.tag or "latest")
        else:
            chunks = docker_archive(self.image, name=self.reference.tag)
        with writing(self._path):
            descriptor, name = tempfile.mkstemp(prefix=f".{self._path.name}-", dir=self._path.parent)
            self._temporary = Path(name)
        try:
            for chunk in chunks:
                with writing(self._path):
                    write_all(descriptor, chunk)
            with writing(self._path):
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _publish(self) -> None:
        assert self._temporary is not None
        with writing(self._path):
            if self._overwrite:
                self._temporary.rename(self._path)
                return
            try:
                self._path.hardlink_to(self._temporary)  # unlike a rename, it refuses to replace
            except FileExistsError:
                raise UserError(f"{self._path} was made by someone else meanwhile", remedy="give --overwrite") from None
            self._temporary.unlink()

    def _discard(self) -> None:
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)
