"""A command with many options: grouped in its help, and tolerant of how people write them.

``--opt value`` and ``--opt=value``, options that are given twice, and ``_`` for ``-`` in names are all accepted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])


class GroupedOption(click.Option):
    """An option that stands under a heading of the help."""

    def __init__(self, *args: Any, group: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group = group

    @property
    def key(self) -> str:
        """The long name without dashes: what the option is called in messages and configuration files."""
        return next(name for name in self.opts if name.startswith("--")).removeprefix("--")


class GroupedCommand(click.Command):
    """Shows options by group, in the order in which groups appear."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings["token_normalize_func"] = lambda token: token.replace("_", "-")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                groups.setdefault(getattr(parameter, "group", "Help"), []).append(record)
        for heading, records in groups.items():
            with formatter.section(heading):
                formatter.write_dl(records, col_max=34)


def group(heading: str) -> Callable[..., Callable[[Command], Command]]:
    """Return a decorator like ``click.option`` for options under one heading."""

    def option(*names: str, **settings: Any) -> Callable[[Command], Command]:
        return click.option(*names, cls=GroupedOption, group=heading, **settings)

    return option
