"""``sconify debug``: a command beside the program of a container, inside its shield, for sessions in debug mode."""

from __future__ import annotations

import shutil
import subprocess
import sys

import click

from sconify.errors import ServiceError, UserError

_ENGINES = ("docker", "podman")
_ARGUMENT = "sconify:debug"
"""What the sconified binary takes a command behind (docs/protocol.md, section 10)."""


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option(
    "--engine",
    type=click.Choice(_ENGINES),
    help="Engine that runs the container. Default: the first of them that has it.",
)
@click.argument("container")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def debug(context: click.Context, container: str, command: tuple[str, ...], engine: str | None) -> None:
    """Run COMMAND in CONTAINER, and see the files that its program sees.

    Only a session whose policy tolerates debug-mode, on a platform in debug mode, allows it: convert with
    --allow-debug-mode. COMMAND must be a program of the protected file system: name a shell with --plain-file=/bin/sh.
    Elsewhere use: kubectl exec -it POD -- PROGRAM sconify:debug COMMAND...
    """
    found = [name for name in (engine,) if name] or [name for name in _ENGINES if shutil.which(name)]
    if not found:
        raise ServiceError("neither docker nor podman is installed", remedy="run it where the container runs")
    name, program = _program(found, container)
    terminal = ["--tty"] if sys.stdin.isatty() and sys.stdout.isatty() else []
    if command[0] == "--":
        command = command[1:]
    if not command:
        raise UserError("there is no command", remedy="name one: sconify debug CONTAINER -- sh")
    words = [name, "exec", "--interactive", *terminal, container, program, _ARGUMENT, *command]
    context.exit(subprocess.run(words, check=False).returncode)


def _program(engines: list[str], container: str) -> tuple[str, str]:
    """Return the engine that has a running container, and the path of the binary that it was started with."""
    reasons = []
    for engine in engines:
        words = [engine, "inspect", "--type=container", "--format={{.State.Running}} {{.Path}}", "--", container]
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        except OSError as error:
            raise ServiceError(f"{engine} can't be run: {error.strerror}", remedy="install it") from None
        running, _, path = done.stdout.strip().partition(" ")
        if done.returncode == 0 and path:
            if running != "true":
                raise UserError(f"container {container} does not run", remedy=f"start it: {engine} start {container}")
            return engine, path
        reasons.append(f"{engine}: {(done.stderr.strip().splitlines() or ['no answer'])[-1]}")
    raise UserError(f"there is no container {container} ({'; '.join(reasons)})", remedy="name a running container")
