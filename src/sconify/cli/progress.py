"""How far a conversion is, on standard error: a bar on a terminal, a line for each step elsewhere."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class Detail:
    """What is shown. Errors always are."""

    steps: bool = True
    warnings: bool = True
    commands: bool = False
    artifacts: bool = False

    @classmethod
    def of(cls, level: str, *, debug: bool, verbose: bool) -> Detail:
        """Return what ``--log=LEVEL``, ``--debug`` and ``--verbose`` ask for."""
        return cls(
            steps=level in ("trace", "info"),
            warnings=level in ("trace", "info", "warning"),
            commands=debug or level == "trace",
            artifacts=verbose,
        )


class TerminalProgress:
    """Shows steps and warnings; a context manager, so that the terminal is left as it was."""

    def __init__(self, *, color: bool, detail: Detail | None = None) -> None:
        self._detail = detail or Detail()
        self._console = Console(stderr=True, no_color=not color, highlight=False, soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not sys.stderr.isatty() or not self._detail.steps,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TerminalProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, name: str, total: int) -> None:
        """Show that a step begins; ``total`` is its size in bytes, 0 when it has none."""
        if not self._detail.steps:
            return
        if self._bar.disable:
            self._console.print(Text(f"sconify_image: {name}"))
            return
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=total or None)

    def advance(self, done: int) -> None:
        """Show that ``done`` bytes of the present step are done."""
        if self._task is not None:
            self._bar.update(self._task, completed=done)

    def note(self, text: str) -> None:
        """Show what was decided for the user."""
        if self._detail.steps:
            self._console.print(Text(text))

    def warn(self, text: str) -> None:
        """Show a warning."""
        if self._detail.warnings:
            self._console.print(Text(f"warning: {text}", style="yellow"))

    def artifact(self, name: str, text: str) -> None:
        """Show a text that was made."""
        if self._detail.artifacts:
            self._console.print(Text(f"--- {name}\n{text.rstrip()}\n---"))

    def debug(self, text: str) -> None:
        """Show a command that is run."""
        if self._detail.commands:
            self._console.print(Text(text, style="dim"))
