"""``sconify``: the command with everything but the conversion, which is ``sconify_image``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from sconify import __version__
from sconify.cli.errors import run_command
from sconify.cli.lazy import LazyGroup
from sconify.errors import BugError, UserError

_NAMES = (
    "attest",
    "cas",
    "debug",
    "decrypt",
    "diff",
    "embedded",
    "init",
    "inspect",
    "las",
    "measure",
    "platform",
    "session",
    "trace",
    "verify",
    "volume",
)
_COMMANDS = {
    **{name: f"sconify.cli.{name}:{name}" for name in _NAMES},
    "files": "sconify.cli.measure:files",
    "self": "sconify.cli.own_identity:own",
    "cert": "sconify.cli.own_identity:certificate",
}


@click.group(cls=LazyGroup, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write what would go to standard output to this file; it is there only when the command has succeeded.",
)
@click.pass_context
def sconify(context: click.Context, output: Path | None) -> None:
    """Confidential containers: services, sessions and volumes. Images are converted by `sconify_image`.

    An argument @FILE stands for the arguments in that file, written as for a shell.
    """
    if output is not None:
        draft = output.with_name(f".{output.name}.part")
        stream = context.with_resource(draft.open("w", encoding="utf-8"))
        context.with_resource(contextlib.redirect_stdout(stream))
        context.with_resource(_renamed(draft, output))


@contextlib.contextmanager
def _renamed(draft: Path, output: Path):  # type: ignore[no-untyped-def] # an iterator of nothing
    try:
        yield
        sys.stdout.flush()
        draft.replace(output)
    finally:
        draft.unlink(missing_ok=True)


@sconify.command()
def version() -> None:
    """Print the version."""
    click.echo(__version__)


@sconify.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands in SHELL; for bash: eval "$(sconify completion bash)"."""
    kind = get_completion_class(shell)
    if kind is None:
        raise BugError(f"there is no completion for {shell}")
    click.echo(kind(sconify, {}, "sconify", "_SCONIFY_COMPLETE").source())


def expand(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with each ``@FILE`` replaced by the arguments in that file.

    Raises:
        UserError: A file can't be read, or has a quote that is not closed.
    """
    expanded: list[str] = []
    for argument in arguments:
        if not argument.startswith("@") or argument == "@":
            expanded.append(argument)
            continue
        try:
            expanded += shlex.split(Path(argument[1:]).read_text("utf-8"), comments=True)
        except (OSError, ValueError) as error:
            why = (error.strerror or "no such file") if isinstance(error, OSError) else "it is no list of arguments"
            raise UserError(f"{argument}: {why}", remedy="name a file with arguments") from None
    return expanded


def main() -> None:
    """Run the command."""
    run_command(sconify, "sconify", prepare=expand)


if __name__ == "__main__":
    main()
