"""Prints what ``--explain`` found: to standard output, as a table or as JSON."""

from __future__ import annotations

import json

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from sconify.explanation import Explanation
from sconify.shield.explain import document, rows

LEFT_OUT_SHOWN = 10
"""Paths that stay behind which are shown without ``--verbose``."""

PIPED_WIDTH = 160
"""Columns of the table where there is no terminal to tell."""


def print_explanation(explanation: Explanation, *, as_json: bool, verbose: bool, color: bool) -> None:
    """Print the plan of a conversion.

    Args:
        explanation: What would be done.
        as_json: One JSON document instead of tables.
        verbose: Every path, not only the regions.
        color: Whether colours are allowed.
    """
    if as_json:
        print(json.dumps(explanation_document(explanation), indent=2, ensure_ascii=True))
        return
    choice = explanation.choice
    console = Console(no_color=not color, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(f"program: {choice.program.path}", markup=False)
    console.print(f"command: {json.dumps(list(choice.command))}", markup=False)
    console.print(f"working directory: {choice.working_directory}", markup=False)
    console.print(f"protected variables: {' '.join(sorted(choice.environment))}", markup=False)
    console.print(f"expected measurement: {expected_measurement(explanation)}", markup=False)
    table = Table(box=None, pad_edge=False)
    for column in ("path", "protection", "files", "size", "why"):
        table.add_column(column, justify="right" if column in ("files", "size") else "left", overflow="fold")
    if verbose:
        for path, planned in choice.plan.entries.items():
            table.add_row(path, planned.kind.value, "", decimal(planned.entry.size), planned.reason)
    else:
        for row in rows(choice.plan):
            table.add_row(row.path or "(single files)", row.protection, str(row.files), decimal(row.size), row.reason)
    console.print(table)
    left_out = choice.plan.omitted
    console.print(f"left out: {len(left_out)} files of the native image")
    for path in left_out if verbose else left_out[:LEFT_OUT_SHOWN]:
        console.print(f"  {path}", markup=False)
    for warning in choice.plan.warnings:
        console.print(f"warning: {warning}", markup=False)


def expected_measurement(explanation: Explanation) -> str:
    """Return the measurement, or what it depends on."""
    return explanation.measurement or f"depends on {explanation.measurement_depends_on}"


def explanation_document(explanation: Explanation) -> dict[str, object]:
    """Return everything as one JSON-ready document."""
    choice = explanation.choice
    return {
        "program": choice.program.path,
        "command": list(choice.command),
        "working_directory": choice.working_directory,
        "variables": sorted(choice.environment),
        "measurement": explanation.measurement,
        "measurement_depends_on": explanation.measurement_depends_on or None,
        **document(choice.plan),
    }
