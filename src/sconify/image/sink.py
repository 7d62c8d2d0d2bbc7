"""Write images: stage all bytes, then publish them under a name in one step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sconify.errors import UserError
from sconify.image import skopeo
from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.local_engine import local_engine
from sconify.image.publication import NewImage, StagedImage
from sconify.image.reference import ImageReference, Transport
from sconify.image.registry import DEFAULT_ACCESS, RegistryAccess
from sconify.image.sink_archive import StagedArchive
from sconify.image.sink_engine import StagedInEngine
from sconify.image.sink_layout import StagedLayout, layout_has
from sconify.image.sink_skopeo import StagedBySkopeo
from sconify.image.storage import scratch_directory


def exists(reference: ImageReference, *, registry: RegistryAccess = DEFAULT_ACCESS) -> bool:
    """Tell whether something has this name. A bare name means the local Docker engine.

    Raises:
        UserError: The place can't hold images: it is a directory that is no layout, say.
        ServiceError: The engine or registry can't be asked.
    """
    reference = _destination(reference)
    if reference.transport is Transport.DOCKER_DAEMON:
        engine = local_engine()
        try:
            return engine.inspect(reference.where) is not None
        finally:
            engine.close()
    if reference.path is None:
        return skopeo.exists(str(reference), options=registry.flags(reference))
    if reference.transport is Transport.OCI:
        return layout_has(reference.path, reference.tag or "latest")
    return reference.path.exists()


def require_absent(reference: ImageReference, *, overwrite: bool, registry: RegistryAccess = DEFAULT_ACCESS) -> None:
    """Check, before any work is done, that a name may be taken.

    Raises:
        UserError: The name is taken and ``overwrite`` is false, or the place can't hold images.
        ServiceError: The engine or registry can't be asked.
    """
    if not overwrite and exists(reference, registry=registry):
        raise UserError(f"{reference} exists already", remedy="give --overwrite, or another name")


def write_image(
    reference: ImageReference,
    *,
    config: ImageConfig,
    layers: Sequence[Layer],
    workdir: Path,
    overwrite: bool,
    registry: RegistryAccess = DEFAULT_ACCESS,
) -> StagedImage:
    """Bring an image to its destination, without its name yet.

    The documents are canonical: the same configuration and layers give the same image id and manifest digest.

    Args:
        reference: Where it goes. A bare name means the local Docker engine; no tag means ``latest``.
        config: Its configuration.
        layers: The lowest first.
        workdir: An existing directory with room for the image, for transports that need it.
        overwrite: Whether the name may be taken from another image.
        registry: How registries are reached.

    Returns:
        The staged image: use it as a context manager and ``commit()`` it.

    Raises:
        UserError: The name is taken, or the destination can't be written.
        ServiceError: The engine, the registry or the disk fails.
    """
    reference = _destination(reference)
    require_absent(reference, overwrite=overwrite, registry=registry)
    if reference.transport in {Transport.DOCKER_DAEMON, Transport.DOCKER_ARCHIVE}:
        with scratch_directory(workdir, prefix="sink-") as scratch:
            return _stage_for_docker(reference, config, _without_zstd(layers, scratch), overwrite=overwrite)
    image = NewImage.build(config=config, layers=layers)
    if reference.path is None:
        return StagedBySkopeo(reference, image, workdir=workdir, overwrite=overwrite, registry=registry)
    if reference.transport is Transport.OCI:
        return StagedLayout(reference, image, overwrite=overwrite, workdir=workdir)
    return StagedArchive(reference, image, overwrite=overwrite)


def _without_zstd(layers: Sequence[Layer], scratch: Path) -> list[Layer]:
    """Decompress what Docker before version 23 can't load."""
    return [
        layer.uncompressed(scratch / str(number)) if layer.compression is Compression.ZSTD else layer
        for number, layer in enumerate(layers)
    ]


def _stage_for_docker(
    reference: ImageReference, config: ImageConfig, layers: Sequence[Layer], *, overwrite: bool
) -> StagedImage:
    image = NewImage.build(config=config, layers=layers)
    if reference.transport is Transport.DOCKER_DAEMON:
        return StagedInEngine(reference, image, overwrite=overwrite)
    return StagedArchive(reference, image, overwrite=overwrite)


def _destination(reference: ImageReference) -> ImageReference:
    if reference.digest is not None:
        raise UserError(
            f"{reference} names an image by its digest, which is known only afterwards", remedy="give a tag instead"
        )
    return reference.at(Transport.DOCKER_DAEMON) if reference.transport is Transport.LOCAL else reference
