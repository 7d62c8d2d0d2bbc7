"""Names of images: a transport and what it needs to find one image, in the syntax of containers-transports(5)."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from sconify.errors import UserError


class ImageNotFoundError(UserError):
    """No image of that name is there."""


class Transport(enum.Enum):
    """Where images live. The value is the prefix that people type."""

    LOCAL = ""
    """A bare name: the local Docker engine, then podman's store, then the registry."""
    DOCKER_DAEMON = "docker-daemon"
    DOCKER_ARCHIVE = "docker-archive"
    OCI = "oci"
    OCI_ARCHIVE = "oci-archive"
    CONTAINERS_STORAGE = "containers-storage"
    REGISTRY = "docker"


_FORMS = (
    "NAME[:TAG], docker-daemon:NAME[:TAG], docker-archive:PATH[:NAME[:TAG]], oci:PATH[:TAG], oci-archive:PATH[:TAG], "
    "containers-storage:NAME[:TAG] or docker://NAME[:TAG]"
)
_PATH_TRANSPORTS = frozenset({Transport.DOCKER_ARCHIVE, Transport.OCI, Transport.OCI_ARCHIVE})
_UNFINISHED = {transport.value for transport in Transport} - {Transport.REGISTRY.value}

# The grammar is github.com/distribution/reference's, the one that Docker, podman and skopeo share.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*"
_NAME = rf"(?:(?:{_HOST}|\[[0-9a-fA-F:]+\])(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
_NAMED = re.compile(rf"(?P<name>{_NAME})(?::(?P<tag>{_TAG}))?(?:@(?P<digest>{_DIGEST}))?")
_PATHED = re.compile(rf"(?P<path>[^:\0]+?)(?::(?P<tag>[^\0]+?))?(?:@(?P<digest>{_DIGEST}))?", re.DOTALL)
_LAYOUT_TAG = re.compile(
    r"[A-Za-z0-9]+(?:(?:--|[-._:@/+])[A-Za-z0-9]+)*"
)  # image-spec, org.opencontainers.image.ref.name
_MAX_NAME = 255  # of distribution/reference


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageReference:
    """One image's name. ``str()`` gives text that ``parse`` reads back.

    Exactly one of ``name`` and ``path`` is set. A named image has a tag or a digest or both; a path may have neither,
    which means the only image that is there (or, for a new one, ``latest``).
    """

    transport: Transport
    name: str = ""
    path: Path | None = None
    tag: str | None = None
    """Of ``docker-archive:`` it is a whole ``NAME:TAG``."""
    digest: str | None = None
    """``sha256:`` and 64 hexadecimal digits: the manifest's, or for ``docker-daemon:sha256:…`` the image id."""

    @classmethod
    def parse(cls, text: str) -> ImageReference:
        """Read a reference as people type it.

        Args:
            text: ``[TRANSPORT:]WHERE``, see the error for the forms.

        Raises:
            UserError: It has none of the forms.
        """
        transport, rest = _split_transport(text)
        if transport is Transport.DOCKER_DAEMON and re.fullmatch(_DIGEST, rest):
            return cls(transport=transport, digest=rest)
        reference = _parse_path(transport, rest) if transport in _PATH_TRANSPORTS else _parse_name(transport, rest)
        if reference is None:
            raise UserError(f"{text!r} is not the name of an image", remedy=f"give {_FORMS}")
        return reference

    def __str__(self) -> str:
        prefix = {Transport.LOCAL: "", Transport.REGISTRY: "docker://"}.get(self.transport, f"{self.transport.value}:")
        if self.path is None and not self.name:
            return f"{prefix}{self.digest}"
        return f"{prefix}{self.where}"

    @property
    def where(self) -> str:
        """The reference without its transport, as Docker and skopeo take it."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        if self.path is None and not self.name:
            return digest.removeprefix("@")
        return f"{self.name if self.path is None else self.path}{tag}{digest}"

    def at(self, transport: Transport) -> ImageReference:
        """Return the same named image at another transport."""
        return ImageReference(transport=transport, name=self.name, path=self.path, tag=self.tag, digest=self.digest)


def _split_transport(text: str) -> tuple[Transport, str]:
    if text.startswith("docker://"):
        return Transport.REGISTRY, text.removeprefix("docker://")
    prefix, colon, rest = text.partition(":")
    for transport in Transport:
        # "docker:TAG" is a bare image called docker; only "docker://" is the registry.
        if colon and prefix == transport.value and transport not in {Transport.LOCAL, Transport.REGISTRY}:
            return transport, rest
    return Transport.LOCAL, text


def _parse_name(transport: Transport, rest: str) -> ImageReference | None:
    match = _NAMED.fullmatch(rest)
    if match is None or len(match["name"]) > _MAX_NAME:
        return None
    if transport is Transport.LOCAL and match["name"] in _UNFINISHED:
        return None
    tag = match["tag"] or (None if match["digest"] else "latest")
    return ImageReference(transport=transport, name=match["name"], tag=tag, digest=match["digest"])


def _parse_path(transport: Transport, rest: str) -> ImageReference | None:
    match = _PATHED.fullmatch(rest)
    if match is None:
        return None
    tag = match["tag"]
    if tag is not None and transport is Transport.DOCKER_ARCHIVE:
        named = _NAMED.fullmatch(tag)
        if named is None or named["digest"]:
            return None
        tag = f"{named['name']}:{named['tag'] or 'latest'}"
    elif tag is not None and not _LAYOUT_TAG.fullmatch(tag):
        return None
    return ImageReference(transport=transport, path=Path(match["path"]), tag=tag, digest=match["digest"])
