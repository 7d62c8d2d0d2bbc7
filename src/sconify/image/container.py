"""A container of the Docker engine that runs once."""

from __future__ import annotations

import contextlib
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import docker.errors
import docker.models.containers
import requests

from sconify.errors import ServiceError

_STOPPING = 10
"""Seconds that a program has to end when it is told to."""


class Container:
    """A container that was created and is removed by its engine's ``container``."""

    def __init__(self, container: docker.models.containers.Container) -> None:
        self._container = container

    def put(self, archive: bytes) -> None:
        """Unpack a tar archive at the root, whatever the image has.

        Raises:
            ServiceError: The engine refuses it.
        """
        if not self._container.put_archive("/", archive):
            raise ServiceError("the Docker engine refuses the tracer's files", remedy="look at the engine's log")

    def run(self, *, seconds: float | None, show: Callable[[bytes], None], note: Callable[[str], None]) -> int | None:
        """Run to the end, or until the time is over, or until the user interrupts; return the exit code.

        Args:
            seconds: After which the program is told to end; None: never.
            show: Gets what the program prints.
            note: Is told why it is stopped.

        Returns:
            The exit code, None if it was stopped.
        """
        output = self._container.attach(stream=True, logs=True)

        def show_all() -> None:
            for chunk in output:
                show(chunk)

        printer = threading.Thread(target=show_all, daemon=True)
        self._container.start()
        printer.start()
        deadline = None if seconds is None else time.monotonic() + seconds
        stopped = False
        try:
            while (code := self._ended()) is None:
                if deadline is not None and time.monotonic() >= deadline:
                    note(f"{seconds:g} s are over: the program is stopped")
                    stopped = True
                    break
                time.sleep(0.1)
        except KeyboardInterrupt:
            note("interrupted: the program is stopped, and what it opened so far is recorded")
            stopped = True
        if stopped:
            self._container.stop(timeout=_STOPPING)
        printer.join(_STOPPING)
        return None if stopped else code

    def _ended(self) -> int | None:
        self._container.reload()
        state: dict[str, Any] = self._container.attrs["State"]
        return None if state["Status"] in ("created", "running") else int(state["ExitCode"])

    def read(self, path: str, limit: int) -> bytes:
        """Return a file of the container; empty if there is none.

        Raises:
            ServiceError: It is larger than ``limit`` bytes.
        """
        with tempfile.TemporaryFile() as archive:
            try:
                stream, _ = self._container.get_archive(path)
            except docker.errors.NotFound:
                return b""
            for chunk in stream:
                archive.write(chunk)
                if archive.tell() > limit + (1 << 20):
                    raise ServiceError(f"{path} has more than {limit} bytes", remedy="let the program do less")
            archive.seek(0)
            with tarfile.open(fileobj=archive) as tar:
                member = tar.next()
                file = None if member is None else tar.extractfile(member)
                return b"" if file is None else file.read()

    def remove(self) -> None:
        """Kill it if it runs, and remove it with its anonymous volumes."""
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            self._container.remove(force=True, v=True)
