"""``sconify``: the command with everything but the conversion, which is ``sconify_image``."""

from __future__ import annotations

import click

from sconify import __version__
from sconify.cli.errors import run_command
from sconify.cli.lazy import LazyGroup

_NAMES = ("attest", "cas", "embedded", "init", "las", "measure", "platform", "session")
_COMMANDS = {**{name: f"sconify.cli.{name}:{name}" for name in _NAMES}, "files": "sconify.cli.measure:files"}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
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
