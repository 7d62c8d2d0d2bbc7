"""Where the results of a conversion go: the image, and what it can be built from again."""

from __future__ import annotations

import os
from pathlib import Path

from sconify.errors import UserError
from sconify.image.local_engine import has_local_engine
from sconify.image.reference import ImageReference, Transport
from sconify.request import BUILD_RESOURCES, Request


def destinations_of(request: Request) -> list[ImageReference]:
    """Return where the image goes; the first one is what the result names.

    ``--push-image`` brings a bare name to its registry, and to the local Docker engine too if there is one, so that
    no older image of that name stays there.

    Raises:
        UserError: If an image that can't be in a registry is to be pushed.
    """
    target = request.target
    if not request.push:
        return [target]
    if target.path is not None:
        raise UserError(
            f"--push-image: {target} is no image of a registry",
            remedy="give --to=NAME[:TAG] or --to=docker://NAME[:TAG]",
        )
    registry = target.at(Transport.REGISTRY)
    if target.transport is Transport.REGISTRY:
        return [registry]
    if target.transport is Transport.LOCAL and not has_local_engine():
        return [registry]
    return [registry, target]


def resource_directory(request: Request) -> Path | None:
    """Return where build resources go: as the user says, else ``/build-resources`` if it is there.

    Raises:
        UserError: If the session would be lost: it is neither uploaded nor written.
    """
    if request.build_resources is not None:
        return request.build_resources
    if BUILD_RESOURCES.is_dir() and os.access(BUILD_RESOURCES, os.W_OK):
        return BUILD_RESOURCES
    if not request.upload and request.session_file is None:
        raise UserError(
            f"--disable-session-upload: the session, which holds the key of the image, would be lost: there is no "
            f"{BUILD_RESOURCES}",
            remedy="give --session=FILE or --build-resources=DIRECTORY",
        )
    return None
