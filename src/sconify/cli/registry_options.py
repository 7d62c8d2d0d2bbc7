"""The options of commands that read an image, which may be in a registry."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from sconify.cli.option_groups import Command
from sconify.image.reference import ImageReference
from sconify.image.registry import RegistryAccess
from sconify.image.source import Image, open_image

_PATH = click.Path(path_type=Path)


def registry_options(command: Command) -> Command:
    """Give a command the options that say how registries are reached."""
    for option in (
        click.option("--insecure-registry", multiple=True, metavar="HOST[:PORT]", help="Registry without TLS."),
        click.option("--registry-cert-dir", type=_PATH, metavar="DIR", help="Certificates of registries' authorities."),
        click.option("--authfile", type=_PATH, metavar="FILE", help="Credentials for registries."),
    ):
        command = option(command)
    return command


@contextmanager
def opened_image(reference: ImageReference, options: dict[str, Any]) -> Iterator[Image]:
    """Open an image for a block, with the values of ``registry_options``.

    Raises:
        SconifyError: As ``open_image``.
    """
    access = RegistryAccess(
        authfile=options["authfile"],
        cert_dir=options["registry_cert_dir"],
        insecure=tuple(options["insecure_registry"]),
    )
    with (
        tempfile.TemporaryDirectory(prefix="sconify-") as work,
        open_image(reference, workdir=Path(work), registry=access) as image,
    ):
        yield image
