"""Read the archives of ``docker save`` (Docker image specification v1.2) and archives of OCI layouts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sconify.errors import UntrustedDataError, UserError
from sconify.image.compression import Compression, decompress, detect
from sconify.image.config import ImageConfig
from sconify.image.layer import DEFAULT_MAX_SIZE, SizeLimit, StoredLayer
from sconify.image.layout import FetchForeign, Find, StoredImage, digest_of, read_layout, read_small
from sconify.image.model import EntryType, Extent
from sconify.image.rootfs import PathError, RootFileSystem

_HASHED = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


def read_archive(
    path: Path,
    *,
    label: str,
    workdir: Path,
    tag: str | None = None,
    digest: str | None = None,
    fetch: FetchForeign | None = None,
    max_size: int = DEFAULT_MAX_SIZE,
) -> StoredImage:
    """Find one image in an archive; its layers are read where they are.

    Args:
        path: The archive, which may be compressed as a whole.
        label: What it is, for messages.
        workdir: Where a compressed archive is decompressed.
        tag: ``NAME:TAG`` of an archive of Docker, the tag in an OCI archive; None means the only image.
        digest: Of the manifest in an OCI archive.
        fetch: As for ``read_layout``.
        max_size: Bytes of the archive, if it is compressed as a whole, uncompressed.

    Raises:
        UserError: No such image in it, or it is too large.
        UntrustedDataError: It is no such archive, or malformed.
    """
    whole = Extent(path, 0, path.stat().st_size)
    compression = detect(whole)
    if compression is not Compression.NONE:
        plain = workdir / "archive.tar"
        limit = SizeLimit(max_size, image=label)
        decompress(whole, compression=compression, destination=plain, label=label, count=limit.count)
        whole = Extent(plain, 0, plain.stat().st_size)
    files = RootFileSystem.from_layers([(label, whole)], workdir=workdir)

    def find(name: str) -> Extent | None:
        # Docker writes a layer that occurs twice as a symbolic link.
        try:
            entry = files.resolve(f"/{name}")
        except PathError:
            return None
        return entry.content if entry.type is EntryType.FILE else None

    manifest = find("manifest.json")
    if manifest is not None:
        where = f"{label}, manifest.json"
        item = _select(_manifest(read_small(manifest, label=where), where), tag=tag, label=label)
        return _image(item, find, label)
    if find("index.json") is not None:
        return read_layout(find, label=label, tag=tag, digest=digest, fetch=fetch)
    raise UntrustedDataError(f"{label} has neither manifest.json nor index.json, so it is no archive of an image")


def _manifest(data: bytes, where: str) -> list[dict[str, Any]]:
    try:
        items = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UntrustedDataError(f"{where} is not JSON: {error}") from None
    valid = isinstance(items, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("Config"), str)
        and _is_texts(item.get("Layers") or [])
        and _is_texts(item.get("RepoTags") or [])
        for item in items
    )
    if not valid:
        raise UntrustedDataError(f"{where} is not a list of images with Config, RepoTags and Layers")
    return list(items)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _select(items: list[dict[str, Any]], *, tag: str | None, label: str) -> dict[str, Any]:
    matching = [item for item in items if tag is None or _familiar(tag) in map(_familiar, item.get("RepoTags") or [])]
    if len(matching) == 1:
        return matching[0]
    known = ", ".join(sorted(name for item in items for name in item.get("RepoTags") or [])) or "none"
    what = f"no image {tag}" if tag else f"{len(items)} images"
    raise UserError(f"{label} has {what}; its names are: {known}", remedy="give docker-archive:PATH:NAME:TAG")


def _familiar(name: str) -> str:
    """Shorten a name as Docker does, which writes it short, where podman writes it whole."""
    return name.removeprefix("docker.io/").removeprefix("library/")


def _image(item: dict[str, Any], find: Find, label: str) -> StoredImage:
    data = read_small(_file(item["Config"], find, label), label=f"{label}, {item['Config']}")
    identity = digest_of(data)
    named = _HASHED.fullmatch(item["Config"])
    if named and f"sha256:{named[1]}" != identity:
        raise UntrustedDataError(f"{label}: the configuration {item['Config']} was changed: its digest is {identity}")
    config = ImageConfig.parse(data, label=f"{label}, {item['Config']}")
    names = item.get("Layers") or []
    if len(names) != len(config.diff_ids):
        raise UntrustedDataError(
            f"{label} has {len(names)} layers, its configuration {item['Config']} {len(config.diff_ids)}"
        )
    layers = [
        StoredLayer(blob=_file(name, find, label), diff_id=diff_id, digest=None)
        for name, diff_id in zip(names, config.diff_ids, strict=True)
    ]
    return StoredImage(digest=None, id=identity, config=config, layers=layers)


def _file(name: str, find: Find, label: str) -> Extent:
    extent = find(name)
    if extent is None:
        raise UntrustedDataError(f"{label} lacks the file {name!r}, which its manifest names")
    return extent
