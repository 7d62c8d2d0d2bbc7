"""``sconify inspect``: what an encrypted image says about itself, and whether it fits its session at the CAS."""

from __future__ import annotations

import json
from typing import Any

import click

from sconify.cli.image_session import session_of, session_options
from sconify.cli.registry_options import opened_image, registry_options
from sconify.comparison import compare_with_session
from sconify.errors import UntrustedDataError
from sconify.image.reference import ImageReference
from sconify.inspection import EncryptedImage, inspect_image


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("--verify", is_flag=True, help="Compare the image with its session at the CAS, as `sconify verify`.")
@session_options
@registry_options
def inspect(*, image: str, verify: bool, **options: Any) -> None:
    """Print what an encrypted IMAGE says about itself as JSON; with --verify, fail if its session does not fit."""
    with opened_image(ImageReference.parse(image), options) as opened:
        found = inspect_image(opened)
    document = _document(found)
    if not verify and options["session_file"] is None:
        click.echo(json.dumps(document, indent=2))
        return
    stored = session_of(found, options)
    unfit = [one for one in compare_with_session(found, stored.session, cas_key=stored.cas_key) if not one.fits]
    document["differences"] = [
        {"field": one.field, "image": one.image, "session": one.other, "meaning": one.meaning} for one in unfit
    ]
    click.echo(json.dumps(document, indent=2))
    if unfit:
        fields = "; ".join(f"{one.field}: got {one.image}, expected {one.other} ({one.meaning})" for one in unfit)
        raise UntrustedDataError(
            f"{image} does not fit the session {found.session}: {fields}", remedy="convert it again"
        )


def _document(found: EncryptedImage) -> dict[str, object]:
    return {
        "digest": found.digest,
        "image_id": found.image_id,
        "measurement": found.measurement,
        "manifest": json.loads(found.manifest.canonical_json()),
        "config_id": found.config_id,
        "cas": found.cas,
        "las": found.las,
        "root_tag": found.root_tag,
        "files": dict(found.files),
    }
