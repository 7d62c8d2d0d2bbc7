"""Puts the encrypted image together: layers and configuration. No layer of it is one of the native image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sconify.cas.authority import Authority
from sconify.errors import BugError, UserError
from sconify.image.compression import Compression
from sconify.image.config import HistoryEntry, ImageConfig
from sconify.image.layer import Layer
from sconify.image.layer_around import layer_around
from sconify.image.layer_writer import LayerWriter
from sconify.image.model import Entry, EntryType
from sconify.image.reference import Transport
from sconify.image.source import Image
from sconify.inputs import Inputs
from sconify.request import Request
from sconify.shield.choose import Choice
from sconify.shield.embed import EmbeddedFileSystem
from sconify.shield.plan import BASE_IMAGE
from sconify.shield.protect import BuiltFile, ProtectedFileSystem
from sconify.shield.regions import RegionKind

READABLE = 0o444
"""Mode of the protected file system's files: the container may run as any user."""

RUNNABLE = 0o755
"""Mode of the sconified binary."""


class PackLayers:
    """Makes the layers of packs, and of the index, while others are written still.

    A context manager: leaving it ends what is not done.
    """

    def __init__(self, work: Path) -> None:
        """Prepare; ``work`` is a directory for layers that can't be made around their file.

        Raises:
            UserError: If ``SOURCE_DATE_EPOCH`` is no number.
        """
        self._work = work
        self._epoch = source_date_epoch()
        # Hashing, which is most of the work, is done without the interpreter's lock. All at once: else, of packs
        # of like size, one is hashed in the end, by one processor.
        self._pool = ThreadPoolExecutor(max_workers=max(4, os.cpu_count() or 1), thread_name_prefix="layer")
        self._layers: dict[BuiltFile, Future[Layer]] = {}

    def make(self, built: BuiltFile) -> None:
        """Make the layer of a file that is complete, on another thread."""
        self._layers[built] = self._pool.submit(_protected_layer, built, self._work, self._epoch)

    def layer(self, built: BuiltFile) -> Layer:
        """Wait for the layer of a file.

        Raises:
            ServiceError: If the disk is full.
        """
        return self._layers[built].result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def assemble(
    inputs: Inputs,
    choice: Choice,
    authority: Authority,
    *,
    protected: ProtectedFileSystem | EmbeddedFileSystem,
    binary: bytes,
    pack_layers: PackLayers,
) -> tuple[ImageConfig, tuple[Layer, ...]]:
    """Write the layers and return them with the configuration: base layers, plain files, packs, sconified binary.

    Raises:
        ServiceError: If the disk is full.
        UserError: If ``SOURCE_DATE_EPOCH`` is no number.
    """
    request, native, work = inputs.request, inputs.native, inputs.work
    epoch = source_date_epoch()
    stored = layer_compression(request)
    base_layers = inputs.base.layers if inputs.base is not None else ()
    plain_layer = _plain_layer(choice, work / "plain.tar", epoch, stored)
    binary_layer = _binary_layer(
        choice.program.path, binary, protected, path=work / "binary.tar", epoch=epoch, compression=stored
    )
    # All of the native image was read, and the last packs are hashed still, by other threads.
    native.drop_contents()
    made = {
        "plain files": plain_layer,
        **_protected_layers(protected, pack_layers),
        "sconified binary": binary_layer,
    }
    layers = (*base_layers, *made.values())
    history = [*("base image" for _ in base_layers), *made]
    config = ImageConfig(
        entrypoint=(choice.program.path,),
        env=image_environment(request, authority),
        user=choice.user,
        labels=native.config.labels,
        exposed_ports=native.config.exposed_ports,
        stop_signal=native.config.stop_signal,
        healthcheck=health_check_of(choice, native),
        architecture=native.config.architecture,
        os=native.config.os,
        created=epoch,
        history=tuple(HistoryEntry(created_by=f"sconify_image: {what}") for what in history),
    )
    return config, layers


def health_check_of(choice: Choice, native: Image) -> Mapping[str, Any] | None:
    """Return the ``Healthcheck`` of the output image: its command asks the running program's supervisor."""
    if choice.health_check is None or native.config.healthcheck is None:
        return None
    return choice.health_check.converted(native.config.healthcheck, binary=choice.program.path)


def layer_compression(request: Request) -> Compression:
    """Return how layers are stored: as ``--compression`` says, else as it suits the place where the image goes.

    The local Docker engine stores layers uncompressed, and engines before version 23, which many distributions have,
    can't read zstd. Ciphertext can't be compressed, so packs never are.
    """
    if request.compression is not None:
        return request.compression
    local = request.target.transport in (Transport.LOCAL, Transport.DOCKER_DAEMON)
    return Compression.NONE if local and not request.push else Compression.GZIP


def image_environment(request: Request, authority: Authority) -> dict[str, str]:
    """Return the environment of the output image: where the CAS and the LAS are, what to ask for, and the variables."""
    return {
        "SCONE_CAS_ADDR": authority.cas_address,
        "SCONE_CONFIG_ID": authority.config_id(request.service),
        "SCONE_LAS_ADDR": authority.las_address,
        **request.variables,
    }


def source_date_epoch() -> int:
    """Return the time that everything of ours is dated to: ``SOURCE_DATE_EPOCH``, or 0.

    Raises:
        UserError: If it is no number (https://reproducible-builds.org/specs/source-date-epoch/).
    """
    text = os.environ.get("SOURCE_DATE_EPOCH", "0")
    if not text.isascii() or not text.isdigit():
        raise UserError(f"SOURCE_DATE_EPOCH={text} is no number of seconds", remedy="unset it or give a number")
    return int(text)


def _plain_layer(choice: Choice, path: Path, epoch: int, compression: Compression) -> Layer:
    """The tree of directories, the plain files and the links outside of encrypted and ephemeral regions.

    Links stand on the disk for the kernel's own path walking; what counts is the index. Of an ephemeral region only its
    directory is there, for the engine's sake.
    """
    writer = LayerWriter(path, compression=compression, epoch=epoch)
    beside = choice.plan.beside
    for entry in beside.values():
        if entry.path not in ("/", choice.program.path):
            writer.add(entry)
    prefixes = {region.prefix for region in choice.plan.regions}
    for planned in choice.plan.entries.values():
        entry = planned.entry
        if planned.reason == BASE_IMAGE or entry.path in ("/", choice.program.path) or entry.path in beside:
            continue
        if planned.kind is RegionKind.ENCRYPTED:
            if entry.type is EntryType.DIRECTORY:
                writer.add(Entry(path=entry.path, type=EntryType.DIRECTORY, mode=0o755, mtime=epoch))
        elif planned.kind is RegionKind.EPHEMERAL:
            if entry.path in prefixes and entry.type is EntryType.DIRECTORY:
                writer.add(Entry(path=entry.path, type=EntryType.DIRECTORY, mode=entry.mode, mtime=epoch))
        elif planned.kind is RegionKind.HOST and entry.type is EntryType.FILE:
            writer.add_bytes(entry.path, b"", mode=0o644)
        elif entry.type in (EntryType.FILE, EntryType.DIRECTORY, EntryType.SYMLINK):
            writer.add(entry)
    return writer.finish()


def _protected_layers(protected: ProtectedFileSystem | EmbeddedFileSystem, pack_layers: PackLayers) -> dict[str, Layer]:
    """What changes least comes first, and each pack is a layer of its own: an unchanged one isn't pushed again."""
    if isinstance(protected, EmbeddedFileSystem):
        return {}
    pack_layers.make(protected.index)
    layers = {f"protected files of {built.image_path}": pack_layers.layer(built) for built in protected.packs}
    return {**layers, "index of the protected files": pack_layers.layer(protected.index)}


def _protected_layer(built: BuiltFile, work: Path, epoch: int) -> Layer:
    layer = layer_around(built.content, path=built.image_path, mode=READABLE, epoch=epoch)
    if layer is not None:
        return layer
    writer = LayerWriter(work / f"{built.file.name}.tar", epoch=epoch)
    writer.add(Entry(path=built.image_path, type=EntryType.FILE, mode=READABLE, mtime=epoch, content=built.content))
    return writer.finish()


def _binary_layer(
    program: str,
    binary: bytes,
    protected: ProtectedFileSystem | EmbeddedFileSystem,
    *,
    path: Path,
    epoch: int,
    compression: Compression,
) -> Layer:
    if isinstance(protected, EmbeddedFileSystem):
        # Nearly all of it is ciphertext, so it is not compressed.
        layer = layer_around(protected.packs, path=program, mode=RUNNABLE, epoch=epoch, head=binary)
        if layer is None:
            raise BugError(f"{protected.packs.offset} bytes of room are too few for a head of {len(binary)}")
        return layer
    writer = LayerWriter(path, compression=compression, epoch=epoch)
    writer.add_bytes(program, binary, mode=RUNNABLE)
    return writer.finish()
