"""Real images and containers for tests."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

PROJECT = Path(__file__).resolve().parent.parent
COMMANDS = Path(sys.executable).parent
NATIVE = "sconify-test/flask:native"
ENCRYPTED = "sconify-test/flask:encrypted"
FLASK_OPTIONS = ("--binary=/usr/bin/python3", "--dir=/app", "--dir=/tls", "--overwrite")

Convert = Callable[..., dict[str, Any]]
"""The fixture ``convert``."""


@dataclass(frozen=True)
class Canaries:
    """Strings that no one but the program may see; in files of both directories, the environment and the arguments."""

    app: str = field(default_factory=lambda: f"canary-app-{uuid.uuid4().hex}")
    tls: str = field(default_factory=lambda: f"canary-tls-{uuid.uuid4().hex}")
    environment: str = field(default_factory=lambda: f"canary-env-{uuid.uuid4().hex}")
    argument: str = field(default_factory=lambda: f"canary-arg-{uuid.uuid4().hex}")

    def all(self) -> tuple[str, ...]:
        return (self.app, self.tls, self.environment, self.argument)


def run(*command: str, check: bool = True, timeout: float = 300, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and show its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(command)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass(frozen=True)
class Engine:
    """A command that runs containers as Docker's does."""

    command: tuple[str, ...] = ("docker",)

    def __call__(self, *words: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of the engine to its end."""
        return run(*self.command, *words, check=check, timeout=timeout)


DOCKER = Engine()


@dataclass
class Container:
    """A container that runs in the background."""

    name: str
    engine: Engine = DOCKER

    def address(self) -> str:
        return self.engine("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name).stdout.strip()

    def logs(self) -> str:
        done = self.engine("logs", self.name, check=False)
        return done.stdout + done.stderr

    def wait(self) -> int:
        """Wait for the end and return the exit code."""
        return int(self.engine("wait", self.name).stdout)

    def answer(self, path: str = "/", timeout: float = 30) -> dict[str, Any]:
        """Ask the service over HTTPS until it answers."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                # The example's certificate is made for a name that a container's address does not have.
                reply = httpx.get(f"https://{self.address()}:4996{path}", verify=False)
            except (httpx.TransportError, httpx.InvalidURL):
                running = self.engine("inspect", "--format", "{{.State.Running}}", self.name, check=False).stdout
                if time.monotonic() > deadline or running.strip() != "true":
                    pytest.fail(f"the service does not answer; its log:\n{self.logs()}")
                time.sleep(0.05)
                continue
            document: dict[str, Any] = reply.json()
            return document
