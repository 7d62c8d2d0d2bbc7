"""The results of a conversion, complete but invisible: images without their names, build resources beside their place.

Everything that can fail happens here, so that publishing after the upload of the session is a matter of names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sconify.build_resources import BuildResources, build_resources, dockerfile_text
from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.publication import StagedImage, WrittenImage
from sconify.image.sink import write_image
from sconify.inputs import Inputs


@dataclass(frozen=True, kw_only=True)
class StagedResults:
    """What appears, all at once, by ``publish``."""

    dockerfile: str
    images: tuple[StagedImage, ...]
    """One for each destination."""
    resources: BuildResources

    def publish(self) -> WrittenImage:
        """Let everything appear; return the image at the first destination.

        Raises:
            UserError: A name was taken in the meantime, or a place can't be written.
            ServiceError: The engine, the registry or the disk fails.
        """
        written = [image.commit() for image in self.images]
        self.resources.commit()
        return written[0]


@contextmanager
def staged_results(
    inputs: Inputs, *, config: ImageConfig, layers: tuple[Layer, ...], session: str
) -> Iterator[StagedResults]:
    """Bring everything to where it belongs; what the block does not publish leaves no trace.

    Args:
        inputs: What the conversion read.
        config: The image's configuration.
        layers: All layers, those of the base image first.
        session: The text of the session.

    Raises:
        UserError: A destination can't be written.
        UntrustedDataError: A layer of an image that was read is not what the image says.
        ServiceError: The engine, the registry or the disk fails.
    """
    request = inputs.request
    own_layers = layers[len(inputs.base.layers) if inputs.base is not None else 0 :]
    dockerfile = dockerfile_text(config, base=request.base, layers=len(own_layers))
    with ExitStack() as stack:
        images = [
            stack.enter_context(
                write_image(
                    destination, config=config, layers=layers, workdir=inputs.work, overwrite=request.overwrite,
                    registry=request.registry,
                )
            )
            for destination in inputs.destinations
        ]  # fmt: skip
        resources = stack.enter_context(build_resources(inputs.resources, request.session_file))
        resources.write_session(session)
        resources.write_context(dockerfile, own_layers)
        inputs.verification.confirm()
        yield StagedResults(dockerfile=dockerfile, images=tuple(images), resources=resources)
