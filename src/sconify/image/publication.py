"""A new image, complete but for its name, and the promise that it appears whole or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from sconify.errors import SconifyError
from sconify.image.config import ImageConfig, canonical_json
from sconify.image.layer import Layer
from sconify.image.layout import OCI_CONFIG, OCI_MANIFEST, digest_of
from sconify.image.reference import ImageReference


@dataclass(frozen=True, slots=True, kw_only=True)
class NewImage:
    """An image's documents and layers."""

    config: bytes
    manifest: bytes
    layers: tuple[Layer, ...]

    @classmethod
    def build(cls, *, config: ImageConfig, layers: Sequence[Layer]) -> NewImage:
        """Make the canonical documents: the same for the same configuration and layers.

        Raises:
            BugError: The history of the configuration does not fit the layers.
        """
        config_json = config.to_oci(diff_ids=[layer.diff_id for layer in layers])
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(OCI_CONFIG, config_json),
            "layers": [{"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size} for layer in layers],
        }
        return cls(config=config_json, manifest=canonical_json(manifest), layers=tuple(layers))

    @property
    def id(self) -> str:
        """Digest of the configuration."""
        return digest_of(self.config)

    @property
    def digest(self) -> str:
        """Digest of the manifest."""
        return digest_of(self.manifest)

    @property
    def size(self) -> int:
        """Bytes of all stored layers."""
        return sum(layer.size for layer in self.layers)


def descriptor(media_type: str, document: bytes) -> dict[str, Any]:
    """Return the OCI descriptor of a small document."""
    return {"mediaType": media_type, "digest": digest_of(document), "size": len(document)}


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenImage:
    """An image that has its name."""

    reference: ImageReference
    digest: str
    """Of the manifest."""
    image_id: str
    """Digest of the configuration."""
    size: int
    """Bytes of all layers as they are stored."""


class StagedImage(ABC):
    """All bytes of a new image are where they belong, but nobody can see it yet.

    A context manager: leaving it without ``commit`` removes all traces.
    """

    def __init__(self, reference: ImageReference, image: NewImage) -> None:
        self.reference = reference
        self.image = image
        self._open = True

    def __enter__(self) -> StagedImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.abort()
        else:
            self.abort_after(error)

    def commit(self) -> WrittenImage:
        """Give the image its name, in one step.

        Raises:
            UserError: The name was taken in the meantime.
            ServiceError: The engine, the registry or the disk fails.
        """
        self._publish()
        self._open = False
        return WrittenImage(
            reference=self.reference, digest=self.image.digest, image_id=self.image.id, size=self.image.size
        )

    def abort(self) -> None:
        """Remove all traces; nothing if the image is committed or aborted."""
        if self._open:
            self._open = False
            self._discard()

    def abort_after(self, error: BaseException) -> None:
        """Remove all traces after a failure, which stays the one that is reported."""
        try:
            self.abort()
        except SconifyError as second:
            error.add_note(f"Traces of {self.reference} may be left: {second.what}")

    @abstractmethod
    def _publish(self) -> None:
        """Give the image its name."""

    @abstractmethod
    def _discard(self) -> None:
        """Remove all traces, also of a staging that failed half-way."""
