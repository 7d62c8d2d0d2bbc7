"""Write images into registries and podman's store, through skopeo."""

from __future__ import annotations

from pathlib import Path

from sconify.errors import UserError
from sconify.image import skopeo
from sconify.image.publication import NewImage, StagedImage
from sconify.image.reference import ImageReference, Transport
from sconify.image.registry import DEFAULT_ACCESS, RegistryAccess
from sconify.image.sink_layout import StagedLayout
from sconify.image.storage import scratch_directory


class StagedBySkopeo(StagedImage):
    """The image is in a registry under its digest alone, or in podman's store under its id alone.

    A registry forgets manifests without a tag by itself; they can't be removed safely, for another tag may have the
    same digest. From podman's store the image is removed, unless it was there before.
    """

    def __init__(
        self,
        reference: ImageReference,
        image: NewImage,
        *,
        workdir: Path,
        overwrite: bool,
        registry: RegistryAccess = DEFAULT_ACCESS,
    ) -> None:
        """Copy the image to its destination.

        Raises:
            ServiceError: skopeo is missing or fails, or the disk is full.
        """
        super().__init__(reference, image)
        self._overwrite = overwrite
        self._registry = registry
        self._removable = False
        if reference.transport is Transport.REGISTRY:
            self._staged = f"docker://{reference.name}@{image.digest}"
        else:
            self._staged = f"containers-storage:@{image.id.removeprefix('sha256:')}"
        try:
            with scratch_directory(workdir, prefix="sink-") as scratch:
                layout = ImageReference(transport=Transport.OCI, path=scratch / "layout", tag="image")
                StagedLayout(layout, image, overwrite=False, workdir=workdir).commit()
                self._removable = reference.transport is not Transport.REGISTRY and not skopeo.exists(self._staged)
                skopeo.copy(str(layout), self._staged, options=registry.flags(reference, prefix="dest-"))
        except BaseException as error:
            self.abort_after(error)
            raise

    def _publish(self) -> None:
        access = self._registry.flags(self.reference)
        if not self._overwrite and skopeo.exists(str(self.reference), options=access):
            raise UserError(f"{self.reference} was made by someone else meanwhile", remedy="give --overwrite")
        both = ["--preserve-digests"] if self.reference.transport is Transport.REGISTRY else []
        both += [
            *self._registry.flags(self.reference, prefix="src-"),
            *self._registry.flags(self.reference, prefix="dest-"),
        ]
        skopeo.copy(self._staged, str(self.reference), options=both)

    def _discard(self) -> None:
        if self._removable and skopeo.exists(self._staged):
            skopeo.delete(self._staged)
