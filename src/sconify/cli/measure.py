"""``sconify measure`` and ``sconify files``: what a sconified binary is, and what is embedded in it. Nothing is run."""

from __future__ import annotations

import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from sconify.errors import UserError
from sconify.image.model import Extent
from sconify.image.reference import ImageReference
from sconify.image.rootfs import open_extent
from sconify.image.source import open_image
from sconify.program.embedded import EmbeddedEntry, embedded_entries
from sconify.program.measure import measure_binary
from sconify.program.view import trace
from sconify.request import parse_variable
from sconify.shield.key import file_system_key

_source = click.argument("source", metavar="IMAGE|FILE")
_KINDS = {"-": stat.S_IFREG, "d": stat.S_IFDIR, "l": stat.S_IFLNK, "c": stat.S_IFCHR, "b": stat.S_IFBLK,
          "p": stat.S_IFIFO}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Binary:
    """A sconified binary in some file, and the environment that its image starts it with."""

    extent: Extent
    environment: dict[str, str]


@click.command()
@click.option("--env", multiple=True, metavar="KEY=VALUE",
              help="Variable of the start, as docker run --env gives it; repeatable.")  # fmt: skip
@_source
def measure(source: str, env: tuple[str, ...]) -> None:
    """Print the measurement of a sconified image or binary: what `docker run -e SCONE_HASH=1 IMAGE` prints."""
    with _opened(source) as binary, open_extent(binary.extent) as file:
        environment = {**binary.environment, **dict(parse_variable(text) for text in env)}
        click.echo(measure_binary(file, environment=environment).measurement)


@click.command()
@click.option("--key-file", type=click.Path(path_type=Path), metavar="FILE",
              help="Key that sconify_image was given; --binary-fs-plain needs none.")  # fmt: skip
@_source
def files(source: str, key_file: Path | None) -> None:
    """List what is embedded in a sconified image or binary, each content verified.

    A line has mode, owner, group, size, SHA-256 and path.
    """
    key = None if key_file is None else file_system_key(key_file)
    with _opened(source) as binary:
        with open_extent(binary.extent) as file:
            measured = measure_binary(file, environment={})
        entries = embedded_entries(binary.extent.source, measured, key=key, offset=binary.extent.offset)
        for entry in entries:
            click.echo(_line(entry))


def _line(entry: EmbeddedEntry) -> str:
    mode = stat.filemode(_KINDS[entry.type] | entry.mode)
    link = f" -> {entry.target}" if entry.target else ""
    name = f"{entry.path}{link}".encode(errors="surrogateescape").decode(errors="backslashreplace")
    return f"{mode} {entry.uid} {entry.gid} {entry.size} {entry.sha256 or '-'} {name}"


@contextmanager
def _opened(source: str) -> Iterator[_Binary]:
    path = Path(source)
    if path.is_file() and ":" not in source:
        yield _Binary(Extent(path, 0, path.stat().st_size), {})
        return
    with (
        tempfile.TemporaryDirectory(prefix="sconify-") as work,
        open_image(ImageReference.parse(source), workdir=Path(work)) as image,
    ):
        if not image.config.entrypoint:
            raise UserError(f"{source} has no entrypoint", remedy="name an image that sconify_image made")
        entry = trace(image.root, image.config.entrypoint[0]).entry
        if entry.content is None:
            raise UserError(f"{source}: {entry.path} is no file", remedy="name an image that sconify_image made")
        yield _Binary(entry.content, dict(image.config.env))
