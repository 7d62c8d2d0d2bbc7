"""Errors of the disks that we read and write, as people should see them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

from sconify.errors import ServiceError, UserError

_INTERVAL = 0.1
_FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into our errors.

    Args:
        path: What is written, or the directory that it is written in.

    Raises:
        ServiceError: The disk is full or failed.
        UserError: The path can't be written: permission, missing parent, a file where a directory is needed.
    """
    try:
        yield
    except OSError as error:
        directory = path if path.is_dir() else path.parent
        if error.errno in _FULL:
            raise ServiceError(
                f"no space is left in {directory} while {path} was written",
                remedy="free space there, or set TMPDIR to a directory on a larger disk",
            ) from None
        if error.errno in {errno.EIO, errno.EFBIG}:
            raise ServiceError(f"{path} can't be written: {error.strerror}", remedy="check the disk") from None
        raise UserError(
            f"{path} can't be written: {error.strerror or error}",
            remedy=f"check that {directory} exists and is writable",
        ) from None


@contextmanager
def scratch_directory(workdir: Path, *, prefix: str) -> Iterator[Path]:
    """Make a directory that is removed at the end, whatever happens.

    Args:
        workdir: Where to make it.
        prefix: Of its name.

    Raises:
        ServiceError: The disk is full.
        UserError: ``workdir`` can't be written.
    """
    with writing(workdir):
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=workdir))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def written_back(directory: Path, pattern: str) -> Iterator[None]:
    """Bring files to the disk while a block makes them and uses them, so that syncing them in the end takes no time.

    Args:
        directory: Where they are. Failures are left to those who write them and sync them.
        pattern: Of their names; they need not be there yet.
    """
    ended = Event()

    def sync() -> None:
        descriptors: dict[Path, int] = {}
        try:
            while not ended.wait(_INTERVAL):
                for path in directory.glob(pattern):
                    with suppress(OSError):
                        if path not in descriptors:
                            descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                        os.fdatasync(descriptors[path])
        finally:
            for descriptor in descriptors.values():
                os.close(descriptor)

    thread = Thread(target=sync, name="write-back")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to read into our errors.

    Args:
        path: What is read.

    Raises:
        UserError: The path does not exist or can't be read.
        ServiceError: The disk failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            raise ServiceError(f"{path} can't be read: {error.strerror}", remedy="check the disk") from None
        raise UserError(
            f"{path} can't be read: {error.strerror or error}", remedy="name a file that exists and that you may read"
        ) from None
