"""Open images for reading, wherever they are."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType

from sconify.errors import ServiceError, UntrustedDataError, UserError
from sconify.image import skopeo
from sconify.image.archive import read_archive
from sconify.image.compression import Compression
from sconify.image.config import ImageConfig
from sconify.image.foreign import foreign_layers
from sconify.image.layer import DEFAULT_MAX_SIZE, Layer, open_layers
from sconify.image.layout import Find, StoredImage, read_layout
from sconify.image.local_engine import local_engine
from sconify.image.model import Extent
from sconify.image.reference import ImageNotFoundError, ImageReference, Transport
from sconify.image.registry import DEFAULT_ACCESS, RegistryAccess
from sconify.image.rootfs import RootFileSystem
from sconify.image.storage import StorageError, writing
from sconify.image.verification import Verification

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, bytes done so far, and bytes in total if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image, verified: the digests of its configuration and of all layers are right.

    Where it was opened with a ``Verification``, the layers' are only when that has confirmed them.

    A context manager: leaving it removes what was written into ``workdir``; contents can't be read after that.
    """

    reference: ImageReference
    """Where it was found: never a bare name."""
    config: ImageConfig
    id: str
    """Digest of the configuration."""
    digest: str | None
    """Digest of the manifest; None for Docker's engine and archives, which have none."""
    layers: tuple[Layer, ...]
    root: RootFileSystem
    size: int
    """Of all uncompressed layers, in bytes."""
    scratch: Path
    """Directory with what had to be copied or decompressed."""
    decompressed: tuple[Path, ...]
    """Archives of compressed layers, there."""

    def __enter__(self) -> Image:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def drop_contents(self) -> None:
        """Remove decompressed layers, which takes a moment: what was in them can't be read after that."""
        for archive in self.decompressed:
            archive.unlink(missing_ok=True)

    def close(self) -> None:
        """Remove what was written into the working directory."""
        shutil.rmtree(self.scratch, ignore_errors=True)


def open_image(
    reference: ImageReference,
    *,
    workdir: Path,
    progress: Progress | None = None,
    registry: RegistryAccess = DEFAULT_ACCESS,
    max_size: int = DEFAULT_MAX_SIZE,
    verification: Verification | None = None,
) -> Image:
    """Open an image for reading.

    Args:
        reference: Its name. A bare one is looked for in the local Docker engine, podman's store and the registry.
        workdir: An existing directory with room for the image, uncompressed.
        progress: Is told how far it is, possibly from several threads.
        registry: How registries are reached.
        max_size: Bytes of all its layers, uncompressed.
        verification: Verifies layers while the image is used already; without it, they are verified before.

    Returns:
        The image. Close it when its contents are no longer needed.

    Raises:
        UserError: There is no such image, or it can't be used (another platform, encrypted or foreign layers, more than
            ``max_size`` bytes).
        UntrustedDataError: It is malformed or a digest is wrong.
        ServiceError: The engine, the registry or the disk fails.
    """
    report = progress or _silent
    with _scratch(workdir) as scratch:
        found, stored = _find(reference, _Opening(scratch, report, registry, max_size))
        total = sum(layer.blob.size for layer in stored.layers)
        opened = open_layers(
            stored.layers, workdir=scratch, label=str(found), progress=_Counter(report, total).add, max_size=max_size,
            verification=verification,
        )  # fmt: skip
        try:
            root = RootFileSystem.from_layers(
                [(f"layer {item.layer.diff_id} of {found}", item.archive) for item in opened], workdir=scratch
            )
        except UntrustedDataError:
            if verification is not None:
                verification.raise_mismatch()
            raise
        return Image(
            reference=found,
            config=stored.config,
            id=stored.id,
            digest=stored.digest,
            layers=tuple(item.layer for item in opened),
            root=root,
            size=sum(item.archive.size for item in opened),
            scratch=scratch,
            decompressed=tuple(one.archive.source for one in opened if one.layer.compression is not Compression.NONE),
        )


@dataclass(frozen=True, slots=True)
class _Opening:
    """How an image is opened: the arguments of ``open_image``."""

    scratch: Path
    report: Progress
    registry: RegistryAccess
    max_size: int


def _silent(_step: str, _done: int, _total: int | None) -> None:
    pass


class _Counter:
    def __init__(self, report: Progress, total: int) -> None:
        self._report = report
        self._total = total
        self._done = 0
        self._lock = Lock()

    def add(self, size: int) -> None:
        with self._lock:
            self._done += size
            self._report("verify layers", self._done, self._total)


@contextmanager
def _scratch(workdir: Path) -> Iterator[Path]:
    """Make a directory of our own, which stays only if all goes well."""
    with writing(workdir):
        scratch = Path(tempfile.mkdtemp(prefix="source-", dir=workdir))
    try:
        yield scratch
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _find(reference: ImageReference, how: _Opening) -> tuple[ImageReference, StoredImage]:
    if reference.transport is not Transport.LOCAL:
        return reference, _open(reference, how)
    misses: list[str] = []
    candidates = [reference.at(Transport.DOCKER_DAEMON)]
    if skopeo.available():
        candidates += [*_in_podman(reference), reference.at(Transport.REGISTRY)]
    for candidate in candidates:
        try:
            return candidate, _open(candidate, how)
        except StorageError:
            raise  # our disk's fault: another place would not mend it
        except (ImageNotFoundError, ServiceError) as error:
            misses.append(error.what)
    raise UserError(
        f"there is no image {reference}: {'; '.join(misses)}",
        remedy=f"docker pull {reference}, or give --from=docker-archive:PATH or --from=oci:PATH",
    )


def _in_podman(reference: ImageReference) -> list[ImageReference]:
    """Return the names that podman may have given an image: what it builds, it puts under ``localhost/``."""
    stored = reference.at(Transport.CONTAINERS_STORAGE)
    host, slash, _ = reference.name.partition("/")
    if slash and (host == "localhost" or "." in host or ":" in host):
        return [stored]
    return [dataclasses.replace(stored, name=f"localhost/{reference.name}"), stored]


def _open(reference: ImageReference, how: _Opening) -> StoredImage:
    scratch, registry = how.scratch, how.registry
    how.report(f"read {reference}", 0, None)
    if reference.transport is Transport.DOCKER_DAEMON:
        return _open_engine(reference, how)
    if reference.path is None:
        copied = scratch / "copied"
        skopeo.copy(str(reference), f"oci:{copied}:image", options=registry.flags(reference, prefix="src-"))
        fetch = foreign_layers(scratch, registry)
        return read_layout(_files_of(copied), label=str(reference), tag="image", digest=None, fetch=fetch)
    if reference.transport is Transport.OCI:
        if not reference.path.is_dir():
            raise ImageNotFoundError(f"{reference.path} is no directory", remedy="give oci:PATH of an OCI image layout")
        return read_layout(
            _files_of(reference.path), label=str(reference), tag=reference.tag, digest=reference.digest,
            fetch=foreign_layers(scratch, registry),
        )  # fmt: skip
    if not reference.path.is_file():
        raise ImageNotFoundError(f"{reference.path} is no file", remedy=f"give {reference.transport.value}:PATH")
    return read_archive(
        reference.path, label=str(reference), workdir=scratch, tag=reference.tag, digest=reference.digest,
        fetch=foreign_layers(scratch, registry), max_size=how.max_size,
    )  # fmt: skip


def _open_engine(reference: ImageReference, how: _Opening) -> StoredImage:
    archive = how.scratch / "saved.tar"
    engine = local_engine()
    try:
        engine.save(reference.where, archive, progress=lambda done: how.report(f"read {reference}", done, None))
    finally:
        engine.close()
    return read_archive(archive, label=str(reference), workdir=how.scratch, max_size=how.max_size)


def _files_of(directory: Path) -> Find:
    def find(name: str) -> Extent | None:
        path = directory / name
        return Extent(path, 0, path.stat().st_size) if path.is_file() else None

    return find
