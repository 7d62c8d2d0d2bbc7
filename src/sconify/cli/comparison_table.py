"""Comparisons of images, as lines for people and as JSON."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sconify.comparison import Comparison


def print_comparisons(compared: Sequence[Comparison], *, sides: tuple[str, str]) -> None:
    """Print one line for each field that fits, and what both sides have for each that does not.

    Args:
        compared: The fields.
        sides: What the two sides are called.
    """
    width = max(len(one.field) for one in compared)
    labels = max(len(side) for side in sides)
    for one in compared:
        if one.fits:
            click.echo(f"{one.field:{width}}  same     {one.image}")
            continue
        click.echo(f"{one.field:{width}}  DIFFERS  {one.meaning}")
        for side, value in zip(sides, (one.image, one.other), strict=True):
            click.echo(f"{'':{width}}           {side:{labels}}  {value}")


def comparison_document(compared: Sequence[Comparison]) -> list[dict[str, object]]:
    """Return the fields as a JSON-ready list."""
    return [
        {"field": one.field, "fits": one.fits, "image": one.image, "other": one.other, "meaning": one.meaning}
        for one in compared
    ]
