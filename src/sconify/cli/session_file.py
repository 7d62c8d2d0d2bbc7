"""Session files as commands take them: read, variables filled in, checked, with the warnings that they deserve."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from sconify.cas.session_text import with_name
from sconify.cli.errors import warn
from sconify.cli.session_template import fill_in, parse_variables
from sconify.errors import UserError
from sconify.policy.caution import warnings
from sconify.policy.document import MAX_BYTES
from sconify.policy.model import Session
from sconify.policy.session import parse_session
from sconify.policy.unsupported import refuse_unsupported

_Command = TypeVar("_Command", bound=Callable[..., object])


@dataclass(frozen=True)
class SessionFile:
    """A session file on its way.

    Attributes:
        text: Its text with the variables filled in.
        session: The session that it is.
    """

    text: str
    session: Session


def file_options(command: _Command) -> _Command:
    """Add the argument FILE and the options that say how it is read."""
    command = click.argument("file", type=click.Path(path_type=Path, allow_dash=True))(command)
    options: tuple[Callable[[Any], Any], ...] = (
        click.option(
            "-e",
            "variables",
            multiple=True,
            metavar="NAME=VALUE",
            help="Value for $NAME and ${NAME} in the file; repeatable. Goes before --use-env.",
        ),
        click.option("--use-env", is_flag=True, help="Take values for variables from the environment."),
        click.option("-n", "--name", "session_name", metavar="NAME", help="Another name than the file's."),
        click.option("--fail-on-warning", is_flag=True, help="Refuse a session that deserves a warning."),
    )
    for option in options:
        command = option(command)
    return command


def read_session_file(
    file: Path, variables: tuple[str, ...], *, use_env: bool, session_name: str | None, fail_on_warning: bool
) -> SessionFile:
    """Return a session file with its variables filled in; warnings go to stderr.

    Args:
        file: The file; ``-`` is standard input.
        variables: ``NAME=VALUE`` texts.
        use_env: Whether the environment gives values as well.
        session_name: Takes the place of the session's name, after variables were filled in.
        fail_on_warning: Whether a warning is an error.

    Raises:
        UserError: The file can't be read, a variable has no value, or it is no session.
    """
    text = _read(file)
    try:
        values = (dict(os.environ) if use_env else {}) | parse_variables(variables)
        text = fill_in(text, values)
    except UserError as error:
        raise UserError(f"Parsing session from session template file {file}", remedy=error.remedy) from error
    try:
        if session_name is not None:
            text = with_name(text, session_name)
        session = parse_session(text)
        refuse_unsupported(session)
    except UserError as error:
        raise UserError(f"{file} is no valid session", remedy=error.remedy) from error
    found = list(warnings(session))
    for warning in found:
        warn(str(warning))
    if found and fail_on_warning:
        raise UserError(f"{file} has {len(found)} warnings", remedy="mend them, or leave --fail-on-warning out")
    return SessionFile(text, session)


def _read(file: Path) -> str:
    try:
        if str(file) == "-":
            raw = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with file.open("rb") as opened:
                raw = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}", remedy="name a session file") from error
    if len(raw) > MAX_BYTES:
        raise UserError(f"{file} is larger than {MAX_BYTES} bytes", remedy="name a session file")
    try:
        return re.sub("^\ufeff", "", raw.decode())
    except UnicodeDecodeError:
        raise UserError(f"{file} is no UTF-8 text", remedy="name a session file") from None
