"""``sconify verify``: whether an encrypted image would get its configuration from its session."""

from __future__ import annotations

import json
from typing import Any

import click

from sconify.cli.comparison_table import comparison_document, print_comparisons
from sconify.cli.image_session import session_of, session_options
from sconify.cli.registry_options import opened_image, registry_options
from sconify.comparison import compare_with_session
from sconify.errors import UntrustedDataError
from sconify.image.reference import ImageReference
from sconify.inspection import inspect_image


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@session_options
@registry_options
def verify(*, image: str, as_json: bool, **options: Any) -> None:
    """Compare an encrypted IMAGE with its session at the CAS, field by field; nothing is run.

    Exit code 3 if it would not get its configuration.
    """
    with opened_image(ImageReference.parse(image), options) as opened:
        found = inspect_image(opened)
    stored = session_of(found, options)
    compared = compare_with_session(found, stored.session, cas_key=stored.cas_key)
    unfit = [one for one in compared if not one.fits]
    if as_json:
        document = {"session": found.session, "fits": not unfit, "fields": comparison_document(compared)}
        click.echo(json.dumps(document, indent=2))
    else:
        print_comparisons(compared, sides=("image", "session"))
    if unfit:
        raise UntrustedDataError(
            f"{image} does not fit the session {found.session}: {', '.join(one.field for one in unfit)}",
            remedy="convert it again, or store the session that was made with it",
        )
