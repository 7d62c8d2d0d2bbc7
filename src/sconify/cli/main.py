"""``sconify``: the command with everything but the conversion, which is ``sconify_image``."""

from __future__ import annotations

import click

from sconify import __version__
from sconify.cli.errors import run_command
from sconify.cli.lazy import LazyGroup

_GROUPS = {name: f"sconify.cli.{name}:{name}" for name in ("attest", "cas", "embedded", "las", "platform", "session")}


@click.group(cls=LazyGroup, lazy=_GROUPS, context_settings={"help_option_names": ["-h", "--help"]})
def sconify() -> None:
    """Confidential containers: services, sessions and their attestation. Images are converted by `sconify_image`."""


@sconify.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


def main() -> None:
    """Run the command."""
    run_command(sconify, "sconify")


if __name__ == "__main__":
    main()
