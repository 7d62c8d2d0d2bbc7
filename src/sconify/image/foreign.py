"""Layers that an image does not hold but names by URL (image-spec, ``urls`` of descriptors), fetched when allowed.

An image chooses the URLs, so a fetch tells its author about this machine and may reach into the network that it is in:
that is why it needs the user's word. What comes back is limited to the size, and verified by the digest, that the image
states.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sconify.errors import ServiceError
from sconify.image.layout import FetchForeign
from sconify.image.model import Extent
from sconify.image.registry import RegistryAccess
from sconify.image.storage import writing

_TIMEOUT = 60.0
"""Seconds without a byte."""


def foreign_layers(scratch: Path, registry: RegistryAccess) -> FetchForeign | None:
    """Return what fetches such layers into a directory, or None if the user does not allow it."""
    if not registry.foreign_layers:
        return None

    def fetch(urls: Sequence[str], digest: str, size: int) -> Extent:
        destination = scratch / f"foreign-{digest.removeprefix('sha256:')}"
        failures = []
        for url in urls:
            try:
                _download(url, destination, size)
            except ValueError as error:
                failures.append(f"{url}: {error}")
                continue
            return Extent(destination, 0, size)
        raise ServiceError(
            f"layer {digest} can't be fetched from where the image says it is: {'; '.join(failures)}",
            remedy="check that the URL can be reached from here, or use an image whose layers are all in it",
        )

    return fetch


def _download(url: str, destination: Path, size: int) -> None:
    """Write exactly ``size`` bytes.

    Raises:
        ValueError: The URL is none of HTTP, it can't be had, or there are more or fewer bytes.
        ServiceError: The disk is full.
    """
    import httpx  # noqa: PLC0415 - takes 60 ms to load, and hardly any image needs it

    done = 0
    try:
        if httpx.URL(url).scheme not in ("http", "https"):
            raise ValueError("only http and https are fetched")
        with httpx.stream("GET", url, timeout=_TIMEOUT, follow_redirects=True) as answer:
            answer.raise_for_status()
            with writing(destination), destination.open("wb") as file:
                for chunk in answer.iter_raw():
                    done += len(chunk)
                    if done > size:
                        break
                    file.write(chunk)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ValueError(str(error)) from error
    if done != size:
        raise ValueError(f"got {'more than ' if done > size else ''}{min(done, size)} bytes, expected {size}")
