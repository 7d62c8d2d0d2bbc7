"""How every command ends: one place turns what went wrong into a message on stderr and an exit code.

========  =====================================================================
0         done
2         wrong input: a flag, or what a flag names
3         data from outside failed a check
4         something we depend on failed: a CAS, a registry, the disk
70        a bug of ours; the traceback is in the file that the message names
130, 143  stopped by Ctrl-C, by SIGTERM
========  =====================================================================
"""

from __future__ import annotations

import errno
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NoReturn

import click

from sconify.errors import BugError, SconifyError, ServiceError, UserError

_INTERRUPTED = 128 + signal.SIGINT
_TERMINATED = 128 + signal.SIGTERM


def warn(text: str) -> None:
    """Print what the user should know, but that stops nothing."""
    click.echo(f"warning: {text}", err=True)


def run_command(
    command: click.Command,
    prog_name: str,
    args: Sequence[str] | None = None,
    *,
    prepare: Callable[[Sequence[str]], list[str]] = list,
) -> NoReturn:
    """Run a command and exit: with its exit code, or with the message and the code of what went wrong.

    SIGTERM ends the command as Ctrl-C does, so that what it began is cleaned up.

    Args:
        command: The command.
        prog_name: Its name, for usage texts and messages.
        args: Its arguments without the name; None takes those of the process.
        prepare: Changes the arguments before they are read.

    Raises:
        SystemExit: Always.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        # What comes back is the code of a click.Context.exit, as after --help, or what the command returns: None.
        given = prepare(sys.argv[1:] if args is None else args)
        code = command.main(args=given, prog_name=prog_name, standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo(f"{prog_name}: stopped", err=True)
        sys.exit(_INTERRUPTED)
    except Exception as error:
        known = _as_known(error, prog_name)
        click.echo(f"{prog_name}: error: {known.diagnostics()}", err=True)
        sys.exit(known.exit_code)
    sys.exit(code or 0)


def _as_known(error: Exception, prog_name: str) -> SconifyError:
    match error:
        case SconifyError() if not isinstance(error, BugError):
            return error
        case click.exceptions.NoArgsIsHelpError():
            return UserError(f"a command is missing\n{error.format_message()}")
        case click.ClickException():
            context = error.ctx if isinstance(error, click.UsageError) else None
            path = context.command_path if context else prog_name
            return UserError(error.format_message(), remedy=f"see `{path} --help`")
        case BrokenPipeError():
            return ServiceError("who reads the output has gone away")
        case OSError():
            where = f": {error.filename}" if error.filename else ""
            remedy = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else None
            return ServiceError(f"{error.strerror or error}{where}", remedy=remedy)
        case _:
            what = error.what if isinstance(error, BugError) else f"unexpected {type(error).__name__}"
            return BugError(what, remedy=_bug_remedy(error, prog_name))


def _bug_remedy(error: Exception, prog_name: str) -> str:
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"{prog_name}-", suffix=".traceback", delete=False, encoding="utf-8"
        ) as file:
            file.writelines(traceback.format_exception(error))
    except OSError:
        return "report it: this is a bug of ours (its traceback could not be written)"
    return f"report it with the traceback in {file.name}: this is a bug of ours"


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(_TERMINATED)
