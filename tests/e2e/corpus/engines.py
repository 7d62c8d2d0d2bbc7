"""The ways that containers of the corpus are run: by which engine, as whom, with what taken away."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.containers import DOCKER, Engine

LIMITS = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=4096:4096")
"""podman asks for higher limits than a root without CAP_SYS_RESOURCE can give."""


@dataclass(frozen=True)
class Podman(Engine):
    """podman, and the images that it was given: Docker's id by name."""

    images: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run a command of podman's."""
        if words[0] == "run":
            words = ("run", *LIMITS, *words[1:])
        return super().__call__(*words, check=check, timeout=timeout)

    def provide(self, image: str, workdir: Path) -> None:
        """Give it an image that Docker has."""
        id_of_image = DOCKER("image", "inspect", "--format={{.Id}}", image).stdout.strip()
        if self.images.get(image) == id_of_image:
            return
        archive = workdir / "image.tar"
        DOCKER("save", f"--output={archive}", image)
        self("load", f"--input={archive}")
        archive.unlink()
        self.images[image] = id_of_image


@contextmanager
def podman(directory: Path) -> Iterator[Podman]:
    """podman with a store in ``directory`` and nothing of the machine's; all of it is removed afterwards."""
    command = ("podman", f"--root={directory}/store", f"--runroot={directory}/run", f"--tmpdir={directory}/tmp")
    engine = Podman(command)
    try:
        yield engine
    finally:
        engine("rm", "--all", "--force", "--time=0", check=False)
        engine("rmi", "--all", "--force", check=False)
        shutil.rmtree(directory / "store", ignore_errors=True)


@dataclass(frozen=True)
class Mode:
    """Options of ``docker run``; ``as_user`` adds the user that the program is made for."""

    options: tuple[str, ...] = ()
    as_user: bool = False

    @property
    def takes_capabilities_from_root(self) -> bool:
        """Whether root is what it is by name only."""
        return not self.as_user and "--cap-drop=ALL" in self.options

    @property
    def keeps_its_user(self) -> bool:
        """Whether a program can't become another user."""
        return self.as_user or "--cap-drop=ALL" in self.options


READ_ONLY = "--read-only"
NO_CAPABILITIES = ("--cap-drop=ALL", "--security-opt=no-new-privileges")
MODES = {
    "plain": Mode(),
    "user": Mode(as_user=True),
    "no-capabilities": Mode(NO_CAPABILITIES),
    "read-only": Mode((READ_ONLY,)),
    "restricted": Mode((*NO_CAPABILITIES, READ_ONLY), as_user=True),
}
TEMPORARY = ("--tmpfs=/tmp:exec,mode=1777", "--tmpfs=/var/tmp:exec,mode=1777", "--tmpfs=/run:exec,mode=755")
"""What every encrypted container can write to, whatever its root is: the native one gets the same."""


@dataclass(frozen=True)
class Way:
    """An engine and a mode."""

    engine: Engine
    mode: Mode
    workdir: Path = field(compare=False)

    def options(self, user: str) -> tuple[str, ...]:
        """Options for both the native and the encrypted image."""
        return (*self.mode.options, *((f"--user={user}",) if self.mode.as_user else ()))

    def native_options(self, user: str, *, read_only: bool | None = None) -> tuple[str, ...]:
        """Options for the native image; ``read_only`` says whether its root is read-only, None: as the mode has it."""
        options = self.options(user)
        if read_only is not None:
            options = (*(option for option in options if option != READ_ONLY), *((READ_ONLY,) if read_only else ()))
        return (*options, *TEMPORARY) if READ_ONLY in options else options

    def image(self, name: str) -> str:
        """Return the name of an image of Docker's that the engine now has, too."""
        if isinstance(self.engine, Podman):
            self.engine.provide(name, self.workdir)
        return name


def ways(*quick: str) -> list[Any]:
    """Parameters for the fixture ``way``: all of them; those not among ``quick`` run in ``make corpus`` only."""
    every = [f"{engine}-{mode}" for engine in ("docker", "podman") for mode in MODES]
    return [pytest.param(each, marks=[] if each in quick else pytest.mark.corpus, id=each) for each in every]
