"""``sconify diff``: why two encrypted images have different measurements."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from sconify.cli.comparison_table import comparison_document, print_comparisons
from sconify.cli.registry_options import opened_image, registry_options
from sconify.comparison import compare_images
from sconify.image.reference import ImageReference
from sconify.inspection import EncryptedImage, inspect_image

DIFFERENT = 1
"""Exit code if a field differs, as diff(1) has it."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("image_a", metavar="A")
@click.argument("image_b", metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@registry_options
def diff(*, image_a: str, image_b: str, as_json: bool, **registry: Any) -> None:
    """Compare the encrypted images A and B, field by field: what is measured, and what only the policy holds.

    Exit code 1 if a field differs.
    """
    compared = compare_images(_inspected(image_a, registry), _inspected(image_b, registry))
    fits = all(one.fits for one in compared)
    if as_json:
        click.echo(json.dumps({"fits": fits, "fields": comparison_document(compared)}, indent=2))
    else:
        print_comparisons(compared, sides=("A", "B"))
    if not fits:
        sys.exit(DIFFERENT)


def _inspected(name: str, registry: dict[str, Any]) -> EncryptedImage:
    with opened_image(ImageReference.parse(name), registry) as image:
        return inspect_image(image)
