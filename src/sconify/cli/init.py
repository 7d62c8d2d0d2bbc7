"""``sconify init``: a configuration file for ``sconify_image``, from looking at an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sconify.cli.errors import warn
from sconify.cli.registry_options import opened_image, registry_options
from sconify.errors import UserError
from sconify.image.reference import ImageReference
from sconify.image.storage import writing
from sconify.propose import Proposal, propose

DEFAULT_OUTPUT = Path("sconify.yaml")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("--to", "target", metavar="TO_IMAGE", help="Encrypted image to make.  [default: IMAGE with -encrypted]")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=DEFAULT_OUTPUT, show_default=True,
              help="File to write; - is standard output.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
@registry_options
def init(
    *,
    image: str,
    target: str | None,
    output: Path,
    overwrite: bool,
    **registry: Any,
) -> None:
    """Write a commented sconify.yaml for IMAGE, for `sconify_image --config sconify.yaml`.

    The image is only read: its entrypoint, its programs, and where its author's files are.
    """
    if str(output) != "-" and output.exists() and not overwrite:
        raise UserError(f"{output} exists already", remedy="give --overwrite, or another --output")
    native = ImageReference.parse(image)
    with opened_image(native, registry) as opened:
        proposal = propose(opened)
    text = config_text(native, target or encrypted_name(native), proposal, insecure=registry["insecure_registry"])
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    with writing(output):
        output.write_text(text, encoding="utf-8")
    for warning in proposal.warnings:
        warn(warning)
    click.echo(f"sconify_image --config={output}")


def encrypted_name(native: ImageReference) -> str:
    """Return a name for the encrypted image beside the native one's."""
    if native.path is not None:
        return f"{native.transport.value}:{native.path}-encrypted:{native.tag or 'latest'}"
    tag = native.tag or "latest"
    return str(ImageReference(transport=native.transport, name=f"{native.name}-encrypted", tag=tag))


def config_text(native: ImageReference, target: str, proposal: Proposal, *, insecure: tuple[str, ...] = ()) -> str:
    """Return a configuration file that converts an image as proposed, with the reasons as comments."""
    lines = [
        "# Made by `sconify init` from looking at the image; read it before you use it:",
        "#   sconify_image --config=FILE --explain    shows which path goes where",
        "#   sconify_image --config=FILE              converts; options on the command line win",
        "version: 1",
        f"from: {json.dumps(str(native))}",
        f"to: {json.dumps(target)}",
        "",
        f"# {proposal.binary.reason}",
        f"binary: {json.dumps(proposal.binary.value)}",
    ]
    if proposal.command is not None:
        lines += [f"# {proposal.command.reason}", f"command: {json.dumps(proposal.command.value)}"]
    lines += ["", "# Encrypted: nobody but the attested program sees names, sizes or contents."]
    if proposal.directories:
        lines.append("dir:")
        lines += [f"  - {json.dumps(one.value)}  # {one.reason}" for one in proposal.directories]
    else:
        lines.append("dir: []")
    if insecure:
        lines += ["", f"insecure-registry: {json.dumps(list(insecure))}"]
    lines += [f"# Note: {warning}" for warning in proposal.warnings]
    lines += [
        "",
        "# More that is often needed:",
        "# plain: [/opt/public]          # authenticated, not encrypted",
        "# host-path: [/data]            # as the host gives it, unprotected",
        "# env: {KEY: value}             # one more variable for the program",
        "# cas: cas.example.org          # your CAS; without it an embedded one, for tests",
        "# namespace: team               # of the session; without it a random one",
        "# create-namespace: true",
        "# push-image: true",
        "overwrite: true",
    ]
    return "\n".join(lines) + "\n"
