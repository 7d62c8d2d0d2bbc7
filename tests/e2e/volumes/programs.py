"""The programs whose data is on a volume, in containers."""

from __future__ import annotations

import dataclasses
import select
import subprocess
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.containers import run
from tests.e2e.corpus.services import Recipe

MOUNT = "/data"
"""Where the programs find their volumes."""

LAUNCH, INTEGRITY, SUPERSEDED = 117, 120, 121
REFUSED = (LAUNCH, INTEGRITY)
"""Exit codes of the runtime that does not accept a store."""


def on_volume(recipe: Recipe, path: str) -> Recipe:
    """The recipe with a volume in place of the host's directory."""
    options = [option for option in recipe.options if not option.startswith("--host-path=")]
    return dataclasses.replace(recipe, name=f"{recipe.name}-volume", options=(*options, f"--volume=data:{path}"))


@dataclass
class Recorder:
    """The program of ``recorder.c`` in an encrypted image, with its volume in a directory of the host."""

    image: str
    store: Path
    said: list[str] = field(default_factory=list)

    def options(self) -> tuple[str, ...]:
        return (f"--volume={self.store}:{MOUNT}",)

    def crash(self, seconds: float, signal: str = "KILL") -> tuple[int, int]:
        """Run it for some time and kill the container, or end it by another signal.

        Returns:
            How many records it found, and the number of the last one that it called durable.
        """
        found, acknowledged, refusal = self.attempt(seconds, signal)
        assert not refusal, refusal
        return found, acknowledged

    def attempt(self, seconds: float, signal: str = "KILL") -> tuple[int, int, str]:
        """Do as :meth:`crash` does where the store may be refused; the log is returned besides if it is."""
        name = f"sconify-test-{uuid.uuid4().hex[:12]}"
        command = ("docker", "run", "--rm", f"--name={name}", *self.options(), self.image)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            if not first:
                log = process.communicate(timeout=30)[1]
                assert process.returncode in REFUSED, f"{process.returncode}\n{log}"
                return 0, 0, log
            assert first.startswith("found "), first + process.communicate(timeout=30)[1]
            time.sleep(seconds)
            run("docker", "kill", f"--signal={signal}", name)
            rest, log = process.communicate(timeout=30)
        finally:
            run("docker", "rm", "--force", name, check=False)
        self.said = rest.splitlines()
        for line in self.said:
            assert line.isdigit(), line + log
        found = int(first.split()[1])
        return found, int(self.said[-1]) if self.said else found, ""


class Conversation:
    """The program of ``notes.c`` in a container that runs; as a context, it kills the container at its end."""

    def __init__(self, image: str, *options: str) -> None:
        self.name = f"sconify-test-{uuid.uuid4().hex[:12]}"
        command = ("docker", "run", "--rm", "-i", f"--name={self.name}", *options, image)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        run("docker", "rm", "--force", self.name, check=False)
        self._process.communicate()

    def ask(self, line: str) -> str:
        """Return its answer to a line; nothing if it has ended."""
        self.tell(line)
        return self.answer()

    def tell(self, line: str) -> None:
        """Send a line."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pytest.fail(f"{line}: the program has ended; its log:\n{self._process.communicate()[1]}")

    def answer(self) -> str:
        """Wait for the answer to a line that was sent."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def answers_within(self, seconds: float) -> bool:
        """Return whether there is an answer, or the end, within some time."""
        assert self._process.stdout is not None
        return bool(select.select([self._process.stdout], [], [], seconds)[0])

    def kill(self) -> None:
        """Kill the container."""
        run("docker", "kill", "--signal=KILL", self.name)
        self._process.wait(30)

    def end(self) -> tuple[int, str]:
        """Close its standard input; return the container's exit code and log."""
        _, log = self._process.communicate(timeout=60)
        return self._process.returncode, log

    def wait(self) -> tuple[int, str]:
        """Wait until it has ended by itself; return the container's exit code and log."""
        self._process.wait(60)
        return self.end()


@dataclass
class Notes:
    """The program of ``notes.c`` in an encrypted image, with its volume in a directory of the host."""

    image: str
    store: Path | str

    def talk(self, *options: str, store: Path | str | None = None, read_only: bool = False) -> Conversation:
        """Start a container; with ``read_only`` the host lets it read the store only."""
        mounted = f"--volume={store or self.store}:{MOUNT}{':ro' if read_only else ''}"
        return Conversation(self.image, mounted, *options)

    def said(self, *lines: str, store: Path | str | None = None) -> list[str]:
        """Return the answers of a container that ends by itself afterwards."""
        with self.talk(store=store) as program:
            answers = [program.ask(line) for line in lines]
            code, log = program.end()
        assert code == 0, f"{answers} {code}\n{log}"
        return answers

    def refusal(self, *options: str, store: Path | str | None = None) -> tuple[int, str]:
        """Run it where it can't start; return exit code and log."""
        with self.talk(*options, store=store) as program:
            code, log = program.wait()
        assert code != 0
        return code, log
