"""``sconify platform``: what this host offers for confidential computing."""

from __future__ import annotations

import json

import click

from sconify.platform_info import platform_info


@click.group()
def platform() -> None:
    """The platform: what this host offers for confidential computing."""


@platform.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def info(as_json: bool) -> None:
    """Show which evidence a LAS on this host can give, and what that is concluded from."""
    found = platform_info()
    if as_json:
        document = {
            "kernel": found.kernel,
            "evidence": list(found.evidence),
            "facts": {fact.name: fact.present for fact in found.facts},
        }
        click.echo(json.dumps(document, indent=2))
        return
    hardware = [kind for kind in found.evidence if kind != "simulated"]
    click.echo(f"Kernel:    {found.kernel}")
    click.echo(f"Evidence:  {', '.join(hardware) or 'none of hardware; simulated, which proves nothing'}")
    width = max(len(fact.name) for fact in found.facts)
    for fact in found.facts:
        click.echo(f"  {'yes' if fact.present else 'no ':3}  {fact.name:{width}}  {fact.purpose}")
