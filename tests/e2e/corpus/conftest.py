"""Native images of the corpus and their encrypted twins."""

from __future__ import annotations

import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import COMMANDS, DOCKER, Container, Convert, Engine, run
from tests.e2e.corpus.engines import MODES, Podman, Way, podman
from tests.e2e.corpus.modes import BINARY_FS, FILE_PROTECTION, Mode
from tests.e2e.corpus.native import TOOLS, build, debian
from tests.e2e.corpus.services import Recipe


@dataclass(frozen=True)
class Outcome:
    """What a container showed: its exit code and its standard output."""

    code: int
    output: str


@dataclass(frozen=True)
class Pair:
    """A native image and the encrypted one made of it, and the user that may run them instead of root."""

    native: str
    encrypted: str
    user: str
    mode: Mode = FILE_PROTECTION

    def outcomes(self, way: Way, timeout: float = 60) -> tuple[Outcome, Outcome]:
        """Run both to their ends in the same way: native, encrypted.

        The native one gets a read-only root where protected directories are read-only, and a writable one in every mode
        where all that is embedded may be changed.
        """
        options = way.native_options(self.user, read_only=not self.mode.embeds)
        native = run_to_end(way.engine, way.image(self.native), *options, timeout=timeout)
        return native, run_to_end(way.engine, way.image(self.encrypted), *way.options(self.user), timeout=timeout)


def run_to_end(engine: Engine, image: str, *options: str, timeout: float) -> Outcome:
    """Run a container to its end; standard error shows only when a test fails."""
    name = f"sconify-corpus-{uuid.uuid4().hex[:12]}"
    try:
        done = engine("run", "--rm", "--name", name, *options, image, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        log = engine("logs", "--tail=20", name, check=False)
        engine("rm", "--force", name, check=False)
        pytest.fail(f"{image} did not end within {timeout:.0f} s; its last lines:\n{log.stdout}{log.stderr}")
    print(f"{image} ended with {done.returncode}; standard error:\n{done.stderr}")
    return Outcome(done.returncode, done.stdout)


def comes_up(container: Container, port: int, timeout: float = 60) -> bool:
    """Wait until a service of a container takes connections; return False if it ends instead."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((container.address(), port), timeout=5).close()
        except OSError:
            state = container.engine("inspect", "--format", "{{.State.Running}}", container.name).stdout.strip()
            if state != "true":
                print(f"the container of port {port} ended; its log:\n{container.logs()[-4000:]}")
                return False
            if time.monotonic() > deadline:
                pytest.fail(f"port {port} is not served; the last lines of the log:\n{container.logs()[-4000:]}")
            time.sleep(0.1)
            continue
        return True


def wait_for_port(container: Container, port: int, timeout: float = 60) -> None:
    """Wait until a service of a container takes connections."""
    if not comes_up(container, port, timeout):
        pytest.fail(f"port {port} is not served: the container ended")


def conversations(
    pair: Pair, way: Way, start: Callable[..., Container], port: int, talk: Callable[[Container], list[str]]
) -> tuple[list[str], list[str]]:
    """Run the native service and then the encrypted one, and return what ``talk`` learns of each.

    Of a service that does not come up, which is right where a mode takes away what it needs, the exit code is returned.
    """
    learnt = []
    for image, options in ((pair.native, way.native_options(pair.user)), (pair.encrypted, way.options(pair.user))):
        container = start(way.image(image), *options, engine=way.engine)
        up = comes_up(container, port)
        learnt.append(talk(container) if up else [f"ended with {container.wait()}"])
        way.engine("rm", "--force", "--volumes", container.name)
    native, encrypted = learnt
    return native, encrypted


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


def numbers(image: str, user: str) -> str:
    """Return the numbers of a user and its group, as ``--user`` takes them."""
    line = run("docker", "run", "--rm", "--entrypoint=getent", image, "passwd", user).stdout
    _, _, uid, gid, *_ = line.split(":")
    return f"{uid}:{gid}"


@pytest.fixture(scope="session")
def pair(convert: Convert, mode: Mode, tmp_path_factory: pytest.TempPathFactory) -> MakePair:
    """Build a native image and convert it."""

    def make(recipe: Recipe) -> Pair:
        native = build(recipe.name, recipe.dockerfile, recipe.files, tmp_path_factory.mktemp(recipe.name))
        encrypted = native.replace(":native", f":{mode.tag}")
        convert(f"--from={native}", f"--to={encrypted}", "--overwrite", *mode.options(recipe.options))
        # No engine finds names in an image whose /etc/passwd is embedded.
        user = numbers(native, recipe.user) if mode.embeds and not recipe.user[0].isdigit() else recipe.user
        return Pair(native, encrypted, user, mode)

    return make


@pytest.fixture(scope="session")
def podman_engine(home: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman with a container that runs as long as the tests: its bridge is there while there is one."""
    directory = tmp_path_factory.mktemp("podman")
    with podman(directory) as engine:
        engine.provide(debian(TOOLS), directory)
        engine("run", "--detach", debian(TOOLS), "sleep", "infinity")
        # They listen on the bridges that are there when they start.
        run(str(COMMANDS / "sconify"), "embedded", "start", env=home)
        yield engine


@pytest.fixture
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    """How a container is run; tests name what they want by ``ways``. Without a name it is Docker, plainly."""
    name, _, mode = getattr(request, "param", "docker-plain").partition("-")
    engine = request.getfixturevalue("podman_engine") if name == "podman" else DOCKER
    return Way(engine, MODES[mode], tmp_path)


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
