"""Images whose program keeps its data on an encrypted volume."""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.containers import Convert, run

SOURCES = Path(__file__).parent
MOUNT = "/data"


@dataclass
class Recorder:
    """The program of ``recorder.c`` in an encrypted image, with its volume in a directory of the host."""

    image: str
    store: Path
    said: list[str] = field(default_factory=list)

    def options(self) -> tuple[str, ...]:
        return (f"--volume={self.store}:{MOUNT}",)

    def crash(self, seconds: float) -> tuple[int, int]:
        """Run it for some time and kill the container.

        Returns:
            How many records it found, and the number of the last one that it called durable.
        """
        name = f"sconify-test-{uuid.uuid4().hex[:12]}"
        command = ("docker", "run", "--rm", f"--name={name}", *self.options(), self.image)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("found "), first + process.communicate(timeout=30)[1]
            time.sleep(seconds)
            run("docker", "kill", "--signal=KILL", name)
            rest, log = process.communicate(timeout=30)
        finally:
            run("docker", "rm", "--force", name, check=False)
        self.said = rest.splitlines()
        for line in self.said:
            assert line.isdigit(), line + log
        found = int(first.split()[1])
        return found, int(self.said[-1]) if self.said else found

    def refusal(self) -> tuple[int, str]:
        """Run it where it can't start; return exit code and log."""
        name = f"sconify-test-{uuid.uuid4().hex[:12]}"
        command = ("docker", "run", "--rm", f"--name={name}", *self.options(), self.image)
        try:
            done = run(*command, check=False, timeout=60)
        finally:
            run("docker", "rm", "--force", name, check=False)
        assert done.stdout == ""
        return done.returncode, done.stderr


@pytest.fixture(scope="session")
def recorder_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The native image."""
    directory = tmp_path_factory.mktemp("recorder")
    run("cc", "-O1", "-static", "-o", f"{directory}/recorder", str(SOURCES / "recorder.c"))
    command = json.dumps(["/recorder", MOUNT])
    (directory / "Dockerfile").write_text(f"FROM scratch\nCOPY recorder /recorder\nCMD {command}\n")
    tag = "sconify-test/recorder:native"
    run("docker", "build", "--quiet", f"--tag={tag}", str(directory))
    return tag


@pytest.fixture
def recorder(recorder_image: str, convert: Convert, tmp_path: Path) -> Callable[[str], Recorder]:
    """Convert the native image; the argument is the name of its session."""

    def make(name: str) -> Recorder:
        image = f"sconify-test/{name}:encrypted"
        convert(
            f"--from={recorder_image}", f"--to={image}", f"--name={name}", "--binary=/recorder", "--overwrite",
            f"--volume=data:{MOUNT}",
        )  # fmt: skip
        store = tmp_path / f"store-{name}"
        store.mkdir()
        return Recorder(image, store)

    return make
