"""Layers: where a layer's bytes are, and opening those that come with an image."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

from sconify.errors import UntrustedDataError, UserError
from sconify.image.compression import Compression, decompress, detect, sha256
from sconify.image.model import Extent
from sconify.image.verification import Verification

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar"

DEFAULT_MAX_SIZE = 64 << 30
"""Bytes of all layers of an image, uncompressed: a small file can claim to be any number of them."""


class SizeLimit:
    """Counts the uncompressed bytes of an image's layers, from several threads."""

    def __init__(self, limit: int, *, image: str) -> None:
        self._limit = limit
        self._image = image
        self._size = 0
        self._lock = Lock()

    def count(self, size: int) -> None:
        """Count some more bytes.

        Raises:
            UserError: They are too many.
        """
        with self._lock:
            self._size += size
            if self._size > self._limit:
                raise UserError(
                    f"the layers of {self._image} have more than {self._limit} bytes uncompressed",
                    remedy="give --max-image-size=SIZE with a larger one, if the image is meant to be that large",
                )


class _Processors:
    """Counts the threads that are at work, each on a layer."""

    def __init__(self) -> None:
        self.count = os.cpu_count() or 1
        self._busy = 0
        self._lock = Lock()

    def spare(self) -> bool:
        """Tell whether there are more processors than threads at work."""
        return self._busy < self.count

    def __enter__(self) -> None:
        with self._lock:
            self._busy += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._busy -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer, stored on this machine, its digests computed from the bytes."""

    blob: Extent
    """The archive as it is stored and published, compressed or not."""
    compression: Compression
    digest: str
    """Of ``blob``."""
    diff_id: str
    """Digest of the uncompressed archive."""

    @property
    def media_type(self) -> str:
        """The layer's OCI media type."""
        return MEDIA_TYPE + self.compression.value

    @property
    def size(self) -> int:
        """Length of the stored blob in bytes."""
        return self.blob.size

    def uncompressed(self, destination: Path) -> Layer:
        """Return the same layer stored without compression.

        Args:
            destination: The file to make; not made if the layer is uncompressed already.

        Raises:
            UntrustedDataError: The stored bytes changed.
            ServiceError: The disk is full.
        """
        if self.compression is Compression.NONE:
            return self
        label = f"layer {self.digest}"
        digests = decompress(self.blob, compression=self.compression, destination=destination, label=label)
        if digests != (self.digest, self.diff_id):
            raise UntrustedDataError(f"{label} was changed in {self.blob.source}")
        blob = Extent(destination, 0, destination.stat().st_size)
        return Layer(blob=blob, compression=Compression.NONE, digest=self.diff_id, diff_id=self.diff_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedLayer:
    """A layer of a source image and its uncompressed archive."""

    layer: Layer
    archive: Extent


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """A layer as an image describes it: nothing here is verified."""

    blob: Extent
    diff_id: str
    digest: str | None
    """Of the blob; archives of Docker don't tell it."""


def open_layers(
    stored: Sequence[StoredLayer],
    *,
    workdir: Path,
    label: str,
    progress: Callable[[int], None],
    max_size: int = DEFAULT_MAX_SIZE,
    verification: Verification | None = None,
) -> list[OpenedLayer]:
    """Verify layers and decompress those that are compressed.

    Args:
        stored: The lowest first.
        workdir: Where uncompressed archives are written.
        label: The image, for messages.
        progress: Called with the size of each blob when it is done, from several threads.
        max_size: Bytes of all of them, uncompressed.
        verification: Verifies those that are not compressed after this returns; without it, they are verified before.

    Raises:
        UserError: They have more than ``max_size`` bytes.
        UntrustedDataError: A digest is not what the image says, or a compressed stream is malformed.
        ServiceError: ``workdir`` is full.
    """
    limit = SizeLimit(max_size, image=label)
    processors = _Processors()
    unique = {(layer.blob, layer.diff_id, layer.digest): layer for layer in stored}

    def opened(item: tuple[int, StoredLayer]) -> OpenedLayer:
        number, layer = item
        if verification is not None and detect(layer.blob) is Compression.NONE:
            return _opened_at_once(layer, label, limit, verification, progress)
        with processors:
            result = _open(layer, workdir / f"layer-{number}.tar", label, limit, processors.spare)
        progress(layer.blob.size)
        return result

    # Hashing and decompression release the interpreter's lock. One more than there are processors, up to a point: few
    # layers of like size are not done one after the other in the end.
    with ThreadPoolExecutor(max_workers=min(4, processors.count + 1)) as pool:
        try:
            results = dict(zip(unique, pool.map(opened, enumerate(unique.values())), strict=True))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[(layer.blob, layer.diff_id, layer.digest)] for layer in stored]


def _open(
    stored: StoredLayer, destination: Path, image: str, limit: SizeLimit, spare: Callable[[], bool]
) -> OpenedLayer:
    label = _label(stored, image)
    compression = detect(stored.blob)
    if compression is Compression.NONE:
        limit.count(stored.blob.size)
        digest = diff_id = sha256(stored.blob)
        archive = stored.blob
    else:
        digest, diff_id = decompress(
            stored.blob, compression=compression, destination=destination, label=label, count=limit.count, spare=spare
        )
        archive = Extent(destination, 0, destination.stat().st_size)
    _check(stored, label, digest=digest, diff_id=diff_id)
    return OpenedLayer(
        layer=Layer(blob=stored.blob, compression=compression, digest=digest, diff_id=diff_id), archive=archive
    )


def _opened_at_once(
    stored: StoredLayer, image: str, limit: SizeLimit, verification: Verification, progress: Callable[[int], None]
) -> OpenedLayer:
    """Open an uncompressed layer whose digest is yet to be confirmed."""
    limit.count(stored.blob.size)

    def check(digest: str) -> None:
        _check(stored, _label(stored, image), digest=digest, diff_id=digest)
        progress(stored.blob.size)

    verification.add(stored.blob, check)
    layer = Layer(blob=stored.blob, compression=Compression.NONE, digest=stored.diff_id, diff_id=stored.diff_id)
    return OpenedLayer(layer=layer, archive=stored.blob)


def _label(stored: StoredLayer, image: str) -> str:
    return f"layer {stored.digest or stored.diff_id} of {image}"


def _check(stored: StoredLayer, label: str, *, digest: str, diff_id: str) -> None:
    """Compare what an image says of a layer with what its bytes say."""
    if stored.digest not in {None, digest}:
        raise UntrustedDataError(f"{label} was changed: its digest is {digest}, expected {stored.digest}")
    if stored.diff_id != diff_id:
        raise UntrustedDataError(
            f"{label} was changed: the digest of its uncompressed archive is {diff_id}, "
            f"expected {stored.diff_id} by the image's configuration"
        )
