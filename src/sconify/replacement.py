"""Programs that can't run on the target platform, replaced by builds from other images.

What can't run is told by the ELF file: another architecture, 32 bits, an unknown dynamic loader, no program at all.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable

from sconify.errors import UserError
from sconify.image.model import Entry, EntryType
from sconify.image.reference import ImageReference
from sconify.image.rootfs import RootFileSystem
from sconify.image.source import Image
from sconify.program.binary import Program, UnsconifiableError, load_program, locate
from sconify.program.closure import shared_objects
from sconify.program.services import service_of
from sconify.program.view import Trail, absolute
from sconify.request import Request

OpenImage = Callable[[ImageReference], Image]


def with_sconifiable_program(
    request: Request, native: Image, open_image: OpenImage, warn: Callable[[str], None]
) -> Image:
    """Return the native image, its program replaced from a ``--replacement-image`` if it can't run as it is.

    Args:
        request: What the user asks for.
        native: The native image.
        open_image: Opens an image until the conversion ends.
        warn: Is told what was replaced, and why.

    Raises:
        UserError: If the program can't run and no replacement is allowed or found.
    """
    environment = native.config.env
    working_dir = absolute(native.config.working_dir, working_dir="/")
    try:
        load_program(native.root, request.binary, environment=environment, working_dir=working_dir)
    except UnsconifiableError as error:
        if not request.replacement_images:
            raise
        if not request.replace_unsconifiable:
            raise UserError(error.what, remedy="leave --disable-replace-unsconifiable-binaries out") from None
        trail = locate(native.root, request.binary, environment=environment, working_dir=working_dir)
        for reference in request.replacement_images:
            root = _replaced(native.root, trail, open_image(reference))
            if root is not None:
                warn(f"{error.what}; it is replaced by the one of {reference}")
                return dataclasses.replace(native, root=root)
        raise UserError(
            f"{error.what}, and no replacement image has {posixpath.basename(trail.entry.path)}",
            remedy="give another --replacement-image",
        ) from None
    return native


def _replaced(native: RootFileSystem, trail: Trail, image: Image) -> RootFileSystem | None:
    """Return the native root with the program of another image, and all that this needs, in place of its own."""
    environment, working_dir = image.config.env, absolute(image.config.working_dir, working_dir="/")
    for name in (trail.entry.path, posixpath.basename(trail.entry.path), posixpath.basename(trail.path)):
        try:
            program = load_program(image.root, name, environment=environment, working_dir=working_dir)
        except UserError:
            continue
        entries = _needed(image, program)
        if program.path != trail.entry.path:
            link = Entry(path=trail.entry.path, type=EntryType.SYMLINK, mode=0o777, target=program.path)
            entries.append(link)
        return native.overlaid(entries)
    return None


def _needed(image: Image, program: Program) -> list[Entry]:
    environment = image.config.env
    entries = {program.path: program.trail.entry}
    trails: list[Trail] = []
    modules: list[Entry] = []
    service = service_of(image.root, program)
    if service is not None:
        libraries = service.libraries(image.root, program, environment=environment)
        trails += [inclusion.trail for inclusion in libraries.inclusions]
        modules += libraries.modules
    closure = shared_objects(image.root, program, environment=environment, working_dir="/", modules=modules)
    trails += [dependency.trail for dependency in closure.dependencies]
    for trail in trails:
        entries.update((link.path, link) for link in trail.links)
        entries.update((entry.path, entry) for entry in image.root.walk(trail.entry.path))
    return list(entries.values())
