"""The Docker engine, through its API."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
import urllib3

from sconify.errors import ServiceError
from sconify.image.compression import write_all
from sconify.image.container import Container
from sconify.image.reference import ImageNotFoundError
from sconify.image.storage import writing

_CHUNK = 1 << 20
_TIMEOUT = 900  # seconds without a byte: the engine is silent while it registers layers


class Engine:
    """A connection to the local Docker engine, found through ``DOCKER_HOST`` as the ``docker`` command does."""

    def __init__(self) -> None:
        """Connect.

        Raises:
            ServiceError: No engine answers.
        """
        try:
            self._client = docker.from_env(timeout=_TIMEOUT)
        except docker.errors.DockerException as error:
            host = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
            raise ServiceError(
                f"the Docker engine at {host} can't be reached: {error}",
                remedy="start it (systemctl start docker), or use docker-archive:PATH or oci:PATH",
            ) from None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def inspect(self, name: str) -> dict[str, Any] | None:
        """Return what ``docker image inspect`` shows, or None if there is no such image."""
        with _requests(f"image {name} can't be inspected"):
            try:
                image: dict[str, Any] = self._client.api.inspect_image(name)  # type: ignore[no-untyped-call]
            except docker.errors.NotFound:
                return None
        return image

    def save(self, name: str, destination: Path, *, progress: Callable[[int], None]) -> None:
        """Write an image's archive into a new file.

        Args:
            name: A name, or an image id.
            destination: The file to make.
            progress: Called with the number of bytes written so far.

        Raises:
            ImageNotFoundError: There is no such image.
            ServiceError: The engine fails, or the disk is full.
        """
        with writing(destination):
            descriptor = os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        done = 0
        try:
            with _requests(f"image {name} can't be read from the Docker engine"):
                for chunk in self._client.api.get_image(name, chunk_size=_CHUNK):
                    with writing(destination):
                        write_all(descriptor, chunk)
                    done += len(chunk)
                    progress(done)
        except docker.errors.NotFound:
            raise ImageNotFoundError(
                f"the Docker engine has no image {name}",
                remedy=f"docker pull {name}, or give --from=docker-archive:PATH or --from=oci:PATH",
            ) from None
        finally:
            os.close(descriptor)

    def load(self, archive: Iterable[bytes]) -> None:
        """Load an archive as ``docker load`` does.

        Raises:
            ServiceError: The engine refuses it or fails.
        """
        with _requests("the image can't be loaded into the Docker engine"):
            for message in self._client.api.load_image(archive, quiet=True):  # type: ignore[no-untyped-call]
                if "error" in message:
                    raise ServiceError(
                        f"the Docker engine refuses the image: {message['error']}",
                        remedy="look at the engine's log, or give --to=oci:DIRECTORY:TAG",
                    )

    @contextmanager
    def container(
        self,
        image: str,
        *,
        entrypoint: Sequence[str],
        command: Sequence[str],
        environment: Mapping[str, str],
        network: str | None,
        ports: Sequence[str],
    ) -> Iterator[Container]:
        """Create a container for a block, to be run in it.

        Args:
            image: A name, or an image id.
            entrypoint: In place of the image's.
            command: In place of the image's.
            environment: In addition to the image's.
            network: As ``docker run --network``; None: the default one.
            ports: As ``docker run --publish``: ``[ADDRESS:]HOST:CONTAINER[/PROTOCOL]`` or ``CONTAINER``.

        Raises:
            ServiceError: The engine fails.
        """
        with _requests(f"a container of {image} can't be run"):
            created = self._client.containers.create(
                image, list(command), entrypoint=list(entrypoint), environment=dict(environment), network=network,
                ports=_published(ports), healthcheck={"test": ["NONE"]},
            )  # fmt: skip
            container = Container(created)
            try:
                yield container
            finally:
                container.remove()

    def tag(self, name: str, new_name: str) -> None:
        """Give an image one more name.

        Raises:
            ServiceError: The engine fails.
        """
        with _requests(f"image {name} can't be tagged {new_name}"):
            self._client.api.tag(name, new_name)

    def untag(self, name: str) -> bool:
        """Remove a name, and with the last one the image; return whether it was there.

        Raises:
            ServiceError: The engine fails.
        """
        with _requests(f"image {name} can't be removed"):
            try:
                self._client.api.remove_image(name, force=True)
            except docker.errors.NotFound:
                return False
        return True


def _published(ports: Sequence[str]) -> dict[str, Any]:
    published: dict[str, Any] = {}
    for text in ports:
        host, _, inside = text.rpartition(":")
        address, _, port = host.rpartition(":")
        number = int(port) if port.isdigit() else None
        published[inside if "/" in inside else f"{inside}/tcp"] = (address, number) if address else number
    return published


@contextmanager
def _requests(what: str) -> Iterator[None]:
    try:
        yield
    except docker.errors.NotFound:
        raise
    except (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise ServiceError(f"{what}: {error}", remedy="look at the engine's log") from None
    except json.JSONDecodeError as error:
        raise ServiceError(
            f"{what}: the engine's answer is not JSON: {error}", remedy="check what DOCKER_HOST names"
        ) from None
