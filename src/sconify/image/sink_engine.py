"""Write images into the local Docker engine."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from sconify.errors import ServiceError, UserError
from sconify.image.local_engine import local_engine
from sconify.image.publication import NewImage, StagedImage
from sconify.image.reference import ImageReference
from sconify.image.sink_archive import docker_archive

_STAGING = "sconify-staging"
_PATIENCE = 30  # seconds that an engine may need to register an image whose bytes it has


class StagedInEngine(StagedImage):
    """The image is loaded under a random name, which keeps it from being pruned."""

    def __init__(self, reference: ImageReference, image: NewImage, *, overwrite: bool) -> None:
        """Load the image.

        Raises:
            ServiceError: The engine can't be reached, refuses the image or fails.
        """
        super().__init__(reference, image)
        self._overwrite = overwrite
        self._name = f"{_STAGING}:{secrets.token_hex(8)}"
        self._sent = False
        self._loaded = False
        self._engine = local_engine()
        try:
            self._engine.load(self._archive())
            self._verify()
        except BaseException as error:
            self.abort_after(error)
            raise

    def _archive(self) -> Iterator[bytes]:
        yield from docker_archive(self.image, name=self._name)
        self._sent = True

    def _verify(self) -> None:
        found = self._engine.inspect(self._name)
        self._loaded = found is not None
        layers = (found or {}).get("RootFS", {}).get("Layers", [])
        if layers != [layer.diff_id for layer in self.image.layers]:
            raise ServiceError(
                f"the Docker engine has other layers than were sent for {self.reference}: {layers}",
                remedy="look at the engine's log, or give --to=oci:DIRECTORY:TAG",
            )

    def _publish(self) -> None:
        if not self._overwrite and self._engine.inspect(self.reference.where) is not None:
            raise UserError(f"{self.reference} was made by someone else meanwhile", remedy="give --overwrite")
        self._engine.tag(self._name, self.reference.where)
        self._engine.untag(self._name)
        self._engine.close()

    def _discard(self) -> None:
        # An engine that has all bytes registers the image even if we no longer wait for its answer.
        deadline = time.monotonic() + (_PATIENCE if self._sent and not self._loaded else 0)
        while not self._engine.untag(self._name) and time.monotonic() < deadline:
            time.sleep(0.2)
        self._engine.close()
