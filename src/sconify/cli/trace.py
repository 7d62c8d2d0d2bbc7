"""``sconify trace``: records what a native image's program opens, as ``sconify_image --trace`` takes it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from sconify.errors import UserError
from sconify.image.reference import ImageReference, Transport
from sconify.image.storage import writing
from sconify.recording import Run, record
from sconify.request import parse_variable


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the list of paths here.  [default: standard output]")  # fmt: skip
@click.option("--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N",
              help="Stop the program after that long; else it runs to its end, or to Ctrl-C.")  # fmt: skip
@click.option("--env", multiple=True, metavar="KEY=VALUE", help="Variable for the program; repeatable.")
@click.option("--publish", multiple=True, metavar="[HOST:]PORT", help="Publish a port, as docker run does; repeatable.")
@click.option("--network", help="Network of the container, as docker run has it.")
def trace(
    *,
    image: str,
    arguments: tuple[str, ...],
    output: Path | None,
    seconds: float | None,
    env: tuple[str, ...],
    publish: tuple[str, ...],
    network: str | None,
) -> None:
    """Run the native IMAGE in the Docker engine and list the files that it opens: sconify_image --trace=FILE.

    ARGUMENTS, after --, stand in place of the image's CMD. The image needs no strace of its own. What the program
    prints goes to standard error. Use the service while it runs: what it does not open is not recorded.
    """
    recording = record(
        Run(
            image=_name(image),
            arguments=arguments,
            environment=dict(parse_variable(text) for text in env),
            network=network,
            ports=publish,
            seconds=seconds,
        ),
        show=_show,
        note=lambda text: click.echo(f"sconify trace: {text}", err=True),
    )
    if recording.exit_code:
        click.echo(f"warning: the program ended with {recording.exit_code}", err=True)
    # A name with a line break can't stand in a list of lines.
    paths = [path for path in recording.paths if "\n" not in path]
    text = "".join(f"{path}\n" for path in paths).encode(errors="surrogateescape")
    if output is None:
        sys.stdout.buffer.write(text)
    else:
        with writing(output):
            output.write_bytes(text)
    click.echo(f"sconify trace: {len(paths)} files were opened", err=True)


def _name(image: str) -> str:
    reference = ImageReference.parse(image)
    if reference.transport not in (Transport.LOCAL, Transport.DOCKER_DAEMON):
        raise UserError(
            f"{image} is not in the Docker engine, which is to run it",
            remedy=f"skopeo copy {image} docker-daemon:NAME:TAG, and name that",
        )
    return reference.where


def _show(chunk: bytes) -> None:
    sys.stderr.buffer.write(chunk)
    sys.stderr.buffer.flush()
