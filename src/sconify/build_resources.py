"""Build resources: what a plain ``docker build`` needs to make the files of the encrypted image again.

::

    DIR/Dockerfile      one ADD for each layer, and the configuration
    DIR/.dockerignore   keeps the session out of the build context
    DIR/layers/*.tar    the layers, uncompressed
    DIR/session.yml     the session; it holds the key of the image, so its mode is 0600
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sconify.image.config import ImageConfig
from sconify.image.layer import Layer
from sconify.image.reference import ImageReference, Transport
from sconify.image.storage import reading, writing

SESSION = "session.yml"
_LAYERS = "layers"
_DOCKERIGNORE = f"{SESSION}\n.dockerignore\nDockerfile\n"


class BuildResources:
    """Build resources that are written whole, but only appear at ``commit``."""

    def __init__(self, directory: Path | None, session_file: Path | None) -> None:
        """Prepare to write; nothing is there before ``commit``.

        Args:
            directory: Where the resources go; None: nowhere.
            session_file: Where the session goes; None: into ``directory``.
        """
        self._directory = directory
        self._session_file = session_file or (None if directory is None else directory / SESSION)
        self._staging: Path | None = None
        self._session: Path | None = None

    def write_session(self, text: str) -> None:
        """Write the session.

        Raises:
            UserError: The file can't be written.
            ServiceError: The disk is full.
        """
        if self._session_file is None:
            return
        target = self._session_file
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(prefix=f".{target.name}-", dir=target.parent)  # mode 0600
            self._session = Path(name)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)

    def write_context(self, dockerfile: str, layers: Sequence[Layer]) -> None:
        """Write Dockerfile and layers.

        Raises:
            UserError: The directory can't be written.
            ServiceError: The disk is full.
        """
        if self._directory is None:
            return
        with writing(self._directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=self._directory))
            (self._staging / _LAYERS).mkdir(mode=0o755)
            self._staging.chmod(0o755)
            (self._staging / "Dockerfile").write_text(dockerfile, encoding="utf-8")
            (self._staging / ".dockerignore").write_text(_DOCKERIGNORE, encoding="utf-8")
        for number, layer in enumerate(layers):
            file = self._staging / _LAYERS / layer_name(number)
            plain = layer.uncompressed(file)
            if plain.blob.source != file:
                with reading(plain.blob.source), writing(file):
                    shutil.copyfile(plain.blob.source, file)
            with writing(file):
                file.chmod(0o644)

    def commit(self) -> None:
        """Let everything appear at its place.

        Raises:
            UserError: A place can't be written.
        """
        if self._staging is not None and self._directory is not None:
            with writing(self._directory):
                shutil.rmtree(self._directory / _LAYERS, ignore_errors=True)
                for name in (_LAYERS, "Dockerfile", ".dockerignore"):
                    (self._staging / name).rename(self._directory / name)
                self._staging.rmdir()
            self._staging = None
        if self._session is not None and self._session_file is not None:
            with writing(self._session_file):
                self._session.replace(self._session_file)
            self._session = None

    def abort(self) -> None:
        """Remove what was written and has not appeared."""
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
        if self._session is not None:
            self._session.unlink(missing_ok=True)


@contextmanager
def build_resources(directory: Path | None, session_file: Path | None) -> Iterator[BuildResources]:
    """Prepare build resources; what is not committed in the block leaves no trace."""
    resources = BuildResources(directory, session_file)
    try:
        yield resources
    finally:
        resources.abort()


def layer_name(number: int) -> str:
    """Return the file name of a layer of ours, counted from 0."""
    return f"{number}.tar"


def dockerfile_text(config: ImageConfig, *, base: ImageReference | None, layers: int) -> str:
    """Return a Dockerfile that makes the image from its layers.

    Args:
        config: The image's configuration.
        base: The base image, if there is one.
        layers: How many layers stand on it.
    """
    lines = [
        "# Made by sconify_image. `docker build` with this directory makes the same files again.",
        *_from(base),
        *(f"ADD {_LAYERS}/{layer_name(number)} /" for number in range(layers)),
        *(f"ENV {name}={_quoted(value)}" for name, value in config.env.items()),
        *(_label(name, value) for name, value in sorted(config.labels.items())),
        *(f"EXPOSE {port}" for port in config.exposed_ports),
    ]
    if config.stop_signal:
        lines.append(f"STOPSIGNAL {config.stop_signal}")
    if config.user:
        lines.append(f"USER {_quoted(config.user)}")
    lines.append(f"ENTRYPOINT {json.dumps(list(config.entrypoint), ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _from(base: ImageReference | None) -> list[str]:
    if base is None:
        return ["FROM scratch"]
    if base.transport in (Transport.LOCAL, Transport.DOCKER_DAEMON, Transport.REGISTRY):
        return [f"FROM {base.where}"]
    return [f"# Load {base} into the engine, and give its name: --build-arg BASE_IMAGE=NAME", "ARG BASE_IMAGE",
            "FROM ${BASE_IMAGE}"]  # fmt: skip


def _label(name: str, value: str) -> str:
    if "\n" in name + value:
        return f"# The label {_quoted(name.splitlines()[0])} has a line break, which no Dockerfile can say."
    return f"LABEL {_quoted(name)}={_quoted(value)}"


def _quoted(text: str) -> str:
    """Return text in double quotes for a Dockerfile: no character in it has a meaning of its own."""
    return '"' + "".join(f"\\{character}" if character in '"\\$' else character for character in text) + '"'
