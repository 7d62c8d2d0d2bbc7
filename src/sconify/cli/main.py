"""``sconify``: the command with everything but the conversion, which is ``sconify_image``."""

from __future__ import annotations

import click

from sconify import __version__
from sconify.cli.cas import cas
from sconify.cli.embedded import embedded
from sconify.cli.errors import run_command
from sconify.cli.las import las
from sconify.cli.session import session


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def sconify() -> None:
    """Confidential containers: services, sessions and their attestation. Images are converted by `sconify_image`."""


@sconify.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


for group in (cas, embedded, las, session):
    sconify.add_command(group)


def main() -> None:
    """Run the command."""
    run_command(sconify, "sconify")


if __name__ == "__main__":
    main()
