"""Write images into registries and podman's store, through skopeo."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path

from sconify.errors import UserError
from sconify.image import skopeo
from sconify.image.publication import NewImage, StagedImage
from sconify.image.reference import ImageReference, Transport
from sconify.image.sink_layout import StagedLayout


class StagedBySkopeo(StagedImage):
    """The image is in a registry under its digest alone, or in podman's store under a random name.

    A registry forgets manifests without a tag by itself; they can't be removed safely, for another tag may have the
    same digest.
    """

    def __init__(self, reference: ImageReference, image: NewImage, *, workdir: Path, overwrite: bool) -> None:
        """Copy the image to its destination.

        Raises:
            ServiceError: skopeo is missing or fails, or the disk is full.
        """
        super().__init__(reference, image)
        self._overwrite = overwrite
        self._staged: str | None = None
        if reference.transport is Transport.REGISTRY:
            target = f"docker://{reference.name}@{image.digest}"
        else:
            target = f"containers-storage:localhost/sconify-staging:{secrets.token_hex(8)}"
        scratch = Path(tempfile.mkdtemp(prefix="sink-", dir=workdir))
        try:
            layout = ImageReference(transport=Transport.OCI, path=scratch / "layout", tag="image")
            StagedLayout(layout, image, overwrite=False).commit()
            self._staged = target
            skopeo.copy(str(layout), target)
        except BaseException as error:
            self.abort_after(error)
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _publish(self) -> None:
        assert self._staged is not None
        if not self._overwrite and skopeo.exists(str(self.reference)):
            raise UserError(f"{self.reference} was made by someone else meanwhile", remedy="give --overwrite")
        skopeo.copy(self._staged, str(self.reference))
        if self.reference.transport is not Transport.REGISTRY:
            skopeo.delete(self._staged)

    def _discard(self) -> None:
        if (
            self._staged is not None
            and self.reference.transport is not Transport.REGISTRY
            and skopeo.exists(self._staged)
        ):
            skopeo.delete(self._staged)
