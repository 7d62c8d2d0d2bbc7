"""Compressed layers: streams in, streams out, both digests on the way."""

from __future__ import annotations

import enum
import gzip
import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self, cast

import zstandard
from isal import igzip, isal_zlib

from sconify.errors import UntrustedDataError
from sconify.image.model import Extent
from sconify.image.storage import reading, writing

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 256 << 10
"""Of so few bytes, what one step has read or made is still in the processor's cache when the next one takes it."""
_MAX_ZSTD_WINDOW = 1 << 27  # 128 MiB, what zstd itself accepts without --long
_MAX_BEHIND = 8  # pieces in memory

_DeflateError = cast("type[Exception]", isal_zlib.error)  # its stubs say that it is an exception, not a class of them
_MALFORMED = (gzip.BadGzipFile, EOFError, _DeflateError, zstandard.ZstdError)


class Compression(enum.Enum):
    """How a layer's archive is stored. The value ends the OCI media type."""

    NONE = ""
    GZIP = "+gzip"
    ZSTD = "+zstd"

    @classmethod
    def detect(cls, start: bytes) -> Compression:
        """Tell the compression by the first four bytes; names and media types in images are often wrong."""
        if start.startswith(b"\x1f\x8b"):
            return cls.GZIP
        if start == b"\x28\xb5\x2f\xfd":
            return cls.ZSTD
        return cls.NONE


def views(extent: Extent) -> Iterator[memoryview]:
    """Yield an extent's bytes in chunks of at most 256 KiB, each valid until the next: all are in the same memory.

    Raises:
        UserError: The file can't be read.
        UntrustedDataError: It ends before the extent does.
    """
    buffer = memoryview(bytearray(min(_CHUNK, extent.size)))
    with reading(extent.source):
        descriptor = os.open(extent.source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < extent.size:
            with reading(extent.source):
                count = os.preadv(descriptor, [buffer[: extent.size - done]], extent.offset + done)
            if not count:
                raise UntrustedDataError(f"{extent.source} ends {extent.size - done} bytes early")
            done += count
            yield buffer[:count]
    finally:
        os.close(descriptor)


def iterate(extent: Extent) -> Iterator[bytes]:
    """Yield an extent's bytes in chunks of at most 256 KiB.

    Raises:
        UserError: The file can't be read.
        UntrustedDataError: It ends before the extent does.
    """
    return map(bytes, views(extent))


def sha256(extent: Extent) -> str:
    """Return an extent's digest as ``sha256:`` and 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in views(extent):
        digest.update(chunk)
    return f"sha256:{digest.hexdigest()}"


def detect(extent: Extent) -> Compression:
    """Tell how an extent is compressed."""
    return Compression.detect(next(iterate(Extent(extent.source, extent.offset, min(4, extent.size))), b""))


def decompress(
    extent: Extent,
    *,
    compression: Compression,
    destination: Path,
    label: str,
    count: Callable[[int], None] = lambda _: None,
    spare: Callable[[], bool] = lambda: True,
) -> tuple[str, str]:
    """Decompress an extent into a new file.

    Args:
        extent: The compressed bytes.
        compression: Gzip or zstd.
        destination: The file to make.
        label: What it is, for messages.
        count: Called with the size of each piece before it is written; what it raises ends the work.
        spare: Tells whether a processor has nothing else to do, to hash and write on.

    Returns:
        The digests of the compressed and of the uncompressed bytes.

    A zstd stream that ends early is not an error here: its digests tell.

    Raises:
        UserError: The compressed bytes can't be read.
        UntrustedDataError: The stream is malformed.
        ServiceError: The disk is full.
    """
    after = hashlib.sha256()
    with writing(destination):
        output = destination.open("wb", buffering=0)

    def store(plain: bytes) -> None:
        after.update(plain)
        with writing(destination):
            write_all(output.fileno(), plain)

    with output, _HashedReader(extent) as source, _Behind(store, spare) as storing:
        try:
            with _gunzip(source) if compression is Compression.GZIP else _unzstd(source) as reader:
                while plain := reader.read(_CHUNK):
                    count(len(plain))
                    storing.put(plain)
        except _MALFORMED as error:
            raise UntrustedDataError(f"{label} is not valid {compression.name.lower()} data: {error}") from None
        before = source.hexdigest()
    return f"sha256:{before}", f"sha256:{after.hexdigest()}"


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, however often the kernel stops early.

    Raises:
        OSError: The kernel refuses.
    """
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class _Behind:
    """Handles pieces in their order: on a thread of its own, a few behind whoever makes them, or at once.

    A thread of its own is for processors that are idle. Else it is faster to handle a piece where it was made: there
    the processor's cache has it.

    A context manager: leaving it waits until all are handled, or, after an error, drops those that are left.
    """

    def __init__(self, handle: Callable[[bytes], None], helps: Callable[[], bool]) -> None:
        self._handle = handle
        self._helps = helps
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._pending: deque[Future[None]] = deque()

    def put(self, piece: bytes) -> None:
        """Have a piece handled; raises what handling it, or one of those before, raised."""
        if self._helps():
            self._pending.append(self._pool.submit(self._handle, piece))
            if len(self._pending) > _MAX_BEHIND:
                self._pending.popleft().result()
        else:
            self._wait()
            self._handle(piece)

    def _wait(self) -> None:
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._wait()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)


class _HashedReader(io.RawIOBase):
    """Reads an extent once, and computes its digest on the way."""

    def __init__(self, extent: Extent) -> None:
        self._extent = extent
        self._position = 0
        self._digest = hashlib.sha256()
        with reading(extent.source):
            self._descriptor = os.open(extent.source, os.O_RDONLY | os.O_CLOEXEC)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: min(_CHUNK, self._extent.size - self._position)]
        with reading(self._extent.source):
            count = os.preadv(self._descriptor, [view], self._extent.offset + self._position)
        if view and not count:
            raise UntrustedDataError(f"{self._extent.source} ends {self._extent.size - self._position} bytes early")
        self._digest.update(view[:count])
        self._position += count
        return count

    def hexdigest(self) -> str:
        """Return the digest of the whole extent: what was not asked for is read now."""
        while self.read(_CHUNK):
            pass
        return self._digest.hexdigest()

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _gunzip(source: _HashedReader) -> BinaryIO:
    """Decompress gzip members, by Intel's library, which takes less than half of zlib's time."""
    return cast("BinaryIO", igzip.IGzipFile(fileobj=source, mode="rb"))  # type: ignore[no-untyped-call]


def _unzstd(source: _HashedReader) -> BinaryIO:
    """Decompress zstd frames."""
    context = zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW)
    reader = context.stream_reader(cast("BinaryIO", source), read_size=_CHUNK, read_across_frames=True, closefd=False)
    return cast("BinaryIO", reader)
