"""Read OCI image layouts (image-spec, "image-layout.md"), be they directories or archives."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sconify.errors import UntrustedDataError, UserError
from sconify.image.compression import iterate
from sconify.image.config import ImageConfig, parse_json
from sconify.image.layer import StoredLayer
from sconify.image.model import Extent

MAX_JSON = 8 << 20  # registries refuse manifests of more than 4 MiB
REF_NAME = "org.opencontainers.image.ref.name"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_LAYER = re.compile(
    r"application/vnd\.oci\.image\.layer\.(?P<elsewhere>nondistributable\.)?v1\.tar(\+gzip|\+zstd)?"
    r"|application/vnd\.docker\.image\.rootfs\.(?P<foreign>foreign\.)?diff\.tar(\.gzip|\.zstd)?"
)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_NESTING = 4  # of indexes in indexes

Find = Callable[[str], Extent | None]
"""Gives the file at a relative path of a layout."""

FetchForeign = Callable[[Sequence[str], str, int], Extent]
"""Gets a blob from one of some URLs, by its digest and size; whoever uses it verifies both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image's verified manifest and configuration, and its layers, not yet verified."""

    digest: str | None
    """Of the manifest; None if the transport has none."""
    id: str
    """Digest of the configuration."""
    config: ImageConfig
    layers: Sequence[StoredLayer]


def read_small(extent: Extent, *, label: str) -> bytes:
    """Return the bytes of a JSON document.

    Raises:
        UntrustedDataError: It is larger than 8 MiB.
    """
    if extent.size > MAX_JSON:
        raise UntrustedDataError(f"{label} has {extent.size} bytes, at most {MAX_JSON} are expected")
    return b"".join(iterate(extent))


def digest_of(data: bytes) -> str:
    """Return the SHA-256 of a small document as images write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def read_layout(
    find: Find, *, label: str, tag: str | None, digest: str | None, fetch: FetchForeign | None = None
) -> StoredImage:
    """Find one image in a layout and read its manifest and configuration.

    Args:
        find: Access to the layout's files.
        label: The layout, for messages.
        tag: Its ``org.opencontainers.image.ref.name``; None means the only image, or ``latest`` of several.
        digest: Of its manifest or index; None means any.
        fetch: Gets layers that are kept elsewhere (media types ``nondistributable`` and ``foreign``) and are not in the
            layout; None refuses them.

    Raises:
        UserError: No such image, not for linux/amd64, or its layers are encrypted or foreign.
        UntrustedDataError: The layout is malformed or a digest is wrong.
    """
    index = find("index.json")
    if index is None:
        raise UserError(
            f"{label} has no index.json, so it is no OCI image layout",
            remedy="give oci:DIRECTORY or oci-archive:FILE of one",
        )
    reader = _Reader(find, label, fetch)
    document = parse_json(read_small(index, label=f"{label}, index.json"), label=f"{label}, index.json")
    descriptor = _select(reader.descriptors(document, "manifests", "index.json"), label=label, tag=tag, digest=digest)
    for _ in range(_MAX_NESTING):
        text = reader.blob(descriptor)
        where = f"{label}, manifest {descriptor['digest']}"
        document = parse_json(text, label=where)
        media_type = document.get("mediaType") or descriptor.get("mediaType")
        if media_type in {OCI_MANIFEST, DOCKER_MANIFEST}:
            return reader.image(document, descriptor["digest"])
        if media_type not in {OCI_INDEX, DOCKER_LIST}:
            raise UserError(
                f"{where} has the media type {media_type!r}, which is no image", remedy="give the name of an image"
            )
        descriptor = _for_this_platform(reader.descriptors(document, "manifests", where), where)
    raise UntrustedDataError(f"{label} has indexes nested deeper than {_MAX_NESTING}")


class _Reader:
    def __init__(self, find: Find, label: str, fetch: FetchForeign | None) -> None:
        self._find = find
        self._label = label
        self._fetch = fetch

    def descriptors(self, document: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
        items = document.get(key)
        if not isinstance(items, list):
            raise UntrustedDataError(f"{self._label}, {where}: {key} is not a list")
        return [self._descriptor(item, where) for item in items]

    def _descriptor(self, item: object, where: str) -> dict[str, Any]:
        if (
            not isinstance(item, dict)
            or not isinstance(item.get("digest"), str)
            or not isinstance(item.get("size"), int)
            or not isinstance(item.get("mediaType", ""), str)
        ):
            raise UntrustedDataError(f"{self._label}, {where}: an item is no descriptor with digest and size")
        if not _DIGEST.fullmatch(item["digest"]):
            raise UntrustedDataError(
                f"{self._label}, {where}: {item['digest'][:100]!r} is no digest, expected sha256: and 64 digits"
            )
        return item

    def extent(self, descriptor: dict[str, Any]) -> Extent:
        digest = descriptor["digest"]
        extent = self._find(f"blobs/sha256/{digest.removeprefix('sha256:')}")
        if extent is None:
            raise UntrustedDataError(f"{self._label} lacks the blob {digest}")
        if extent.size != descriptor["size"]:
            raise UntrustedDataError(
                f"{self._label}: the blob {digest} has {extent.size} bytes, expected {descriptor['size']}"
            )
        return extent

    def blob(self, descriptor: dict[str, Any]) -> bytes:
        digest = descriptor["digest"]
        data = read_small(self.extent(descriptor), label=f"{self._label}, blob {digest}")
        if digest_of(data) != digest:
            raise UntrustedDataError(f"{self._label}: the blob {digest} was changed: its digest is {digest_of(data)}")
        return data

    def image(self, manifest: dict[str, Any], digest: str) -> StoredImage:
        where = f"manifest {digest}"
        config_descriptor = self._descriptor(manifest.get("config"), where)
        config = ImageConfig.parse(
            self.blob(config_descriptor), label=f"{self._label}, configuration {config_descriptor['digest']}"
        )
        descriptors = self.descriptors(manifest, "layers", where)
        if len(descriptors) != len(config.diff_ids):
            raise UntrustedDataError(
                f"{self._label}, {where} has {len(descriptors)} layers, its configuration {len(config.diff_ids)}"
            )
        layers = []
        for descriptor, diff_id in zip(descriptors, config.diff_ids, strict=True):
            layers.append(StoredLayer(blob=self._layer(descriptor), diff_id=diff_id, digest=descriptor["digest"]))
        return StoredImage(digest=digest, id=config_descriptor["digest"], config=config, layers=layers)

    def _layer(self, descriptor: dict[str, Any]) -> Extent:
        media_type, digest = descriptor.get("mediaType", ""), descriptor["digest"]
        match = _LAYER.fullmatch(media_type)
        if match is None:
            problem, remedy = f"has the media type {media_type!r}", "use an image whose layers are tar archives"
            if media_type.endswith("+encrypted"):
                problem, remedy = "is encrypted", "decrypt the image first (skopeo copy --decryption-key)"
            raise UserError(f"layer {digest} of {self._label} {problem}", remedy=remedy)
        is_elsewhere = match["elsewhere"] or match["foreign"]
        if not is_elsewhere or self._find(f"blobs/sha256/{digest.removeprefix('sha256:')}") is not None:
            return self.extent(descriptor)
        urls = descriptor.get("urls")
        urls = [url for url in urls if isinstance(url, str)] if isinstance(urls, list) else []
        if self._fetch is None or not urls:
            raise UserError(
                f"layer {digest} of {self._label} is not part of the image but kept elsewhere: "
                f"{', '.join(urls) or 'it does not say where'}",
                remedy="give --allow-foreign-layers to fetch it from there"
                if urls
                else "use an image whose layers are all in it",
            )
        return self._fetch(urls, digest, descriptor["size"])


def _select(descriptors: list[dict[str, Any]], *, label: str, tag: str | None, digest: str | None) -> dict[str, Any]:
    tags = [str((item.get("annotations") or {}).get(REF_NAME, "")) for item in descriptors]
    candidates = [item for item in descriptors if digest in {None, item["digest"]}]
    if tag is not None or len(candidates) > 1:
        wanted = tag or "latest"
        candidates = [
            item for item, name in zip(descriptors, tags, strict=True) if name == wanted and item in candidates
        ]
    if not candidates:
        known = ", ".join(sorted({name for name in tags if name})) or "none"
        raise UserError(
            f"{label} has no image {digest or tag or 'latest'}; its tags are: {known}", remedy="give one of the tags"
        )
    return candidates[0]


def _for_this_platform(descriptors: list[dict[str, Any]], where: str) -> dict[str, Any]:
    platforms = []
    for item in descriptors:
        platform = item.get("platform")
        if not isinstance(platform, dict):
            continue
        if (platform.get("os"), platform.get("architecture")) == ("linux", "amd64"):
            return item
        platforms.append(f"{platform.get('os')}/{platform.get('architecture')}")
    raise UserError(
        f"{where} has no image for linux/amd64, only for: {', '.join(platforms) or 'nothing'}",
        remedy="build one for it (docker build --platform=linux/amd64), or give another --from",
    )
