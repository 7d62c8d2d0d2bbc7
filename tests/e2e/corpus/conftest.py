"""Native images of the corpus and their encrypted twins."""

from __future__ import annotations

import socket
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import Container, Convert, run
from tests.e2e.corpus.modes import BINARY_FS, FILE_PROTECTION, Mode
from tests.e2e.corpus.native import build
from tests.e2e.corpus.services import Recipe


@dataclass(frozen=True)
class Outcome:
    """What a container showed: its exit code and its standard output."""

    code: int
    output: str


@dataclass(frozen=True)
class Pair:
    """A native image and the encrypted one made of it."""

    native: str
    encrypted: str
    mode: Mode = FILE_PROTECTION

    def outcomes(self, *options: str, timeout: float = 60) -> tuple[Outcome, Outcome]:
        """Run both to their ends with the same options of ``docker run``: native, encrypted."""
        native = run_to_end(self.native, *self.mode.native, *options, timeout=timeout)
        return native, run_to_end(self.encrypted, *options, timeout=timeout)


def run_to_end(image: str, *options: str, timeout: float) -> Outcome:
    """Run a container to its end; standard error shows only when a test fails."""
    name = f"sconify-corpus-{uuid.uuid4().hex[:12]}"
    try:
        done = run("docker", "run", "--rm", "--name", name, *options, image, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        log = run("docker", "logs", "--tail=20", name, check=False)
        run("docker", "rm", "--force", name, check=False)
        pytest.fail(f"{image} did not end within {timeout:.0f} s; its last lines:\n{log.stdout}{log.stderr}")
    print(f"{image} ended with {done.returncode}; standard error:\n{done.stderr}")
    return Outcome(done.returncode, done.stdout)


def wait_for_port(container: Container, port: int, timeout: float = 30) -> None:
    """Wait until a service of a container takes connections."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((container.address(), port), timeout=5).close()
        except OSError:
            state = run("docker", "inspect", "--format", "{{.State.Running}}", container.name).stdout.strip()
            if state != "true" or time.monotonic() > deadline:
                pytest.fail(f"port {port} is not served; the last lines of the log:\n{container.logs()[-4000:]}")
            time.sleep(0.1)
            continue
        return


MakePair = Callable[[Recipe], Pair]
"""The fixture ``pair``."""


# The tests of every change run the programs in one of the modes; `make corpus` in both.
@pytest.fixture(
    scope="session",
    params=[FILE_PROTECTION, pytest.param(BINARY_FS, marks=pytest.mark.corpus)],
    ids=lambda mode: str(mode.name),
)
def mode(request: pytest.FixtureRequest) -> Mode:
    """The mode of a test's conversions."""
    chosen: Mode = request.param
    return chosen


@pytest.fixture(scope="session")
def pair(convert: Convert, mode: Mode, tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """Build a native image and convert it."""

    def make(recipe: Recipe) -> Pair:
        native = build(recipe.name, recipe.dockerfile, recipe.files, tmp_path_factory.mktemp(recipe.name))
        encrypted = native.replace(":native", f":{mode.tag}")
        convert(f"--from={native}", f"--to={encrypted}", "--overwrite", *mode.options(recipe.options))
        return Pair(native, encrypted, mode)

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that most programs of the corpus look at: a small file, a big one, links."""
    directory = tmp_path_factory.mktemp("corpus") / "data"
    (directory / "sub").mkdir(parents=True)
    (directory / "small").write_text("".join(f"{letter} line\n" for letter in "abc"))
    (directory / "big").write_bytes(b"".join(number.to_bytes(4, "big") for number in range(800_000)))
    (directory / "sub/inner").write_text("inner\n")
    (directory / "link").symlink_to("sub/inner")
    (directory / "small").chmod(0o640)
    return directory
