"""Errors of the disks that we read and write, as people should see them."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Self

from sconify.errors import ServiceError, UserError

_INTERVAL = 0.1
_FULL = {errno.ENOSPC, errno.EDQUOT}


class StorageError(ServiceError):
    """A disk is full or failed."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to write into our errors.

    Args:
        path: What is written, or the directory that it is written in.

    Raises:
        StorageError: The disk is full or failed.
        UserError: The path can't be written: permission, missing parent, a file where a directory is needed.
    """
    try:
        yield
    except OSError as error:
        directory = path if path.is_dir() else path.parent
        if error.errno in _FULL:
            raise StorageError(
                f"no space is left in {directory} while {path} was written",
                remedy="free space there, or set TMPDIR to a directory on a larger disk",
            ) from None
        if error.errno in {errno.EIO, errno.EFBIG}:
            raise StorageError(f"{path} can't be written: {error.strerror}", remedy="check the disk") from None
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
        StorageError: The disk is full.
        UserError: ``workdir`` can't be written.
    """
    with writing(workdir):
        path = Path(tempfile.mkdtemp(prefix=prefix, dir=workdir))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class WriteBack:
    """Brings files to the disk while they are made and used, so that syncing them in the end takes no time.

    A context manager: leaving it ends that. It says nothing of what failed; ``confirm`` does.
    """

    def __init__(self, directory: Path, pattern: str) -> None:
        """Prepare.

        Args:
            directory: Where the files are.
            pattern: Of their names; they need not be there yet.
        """
        self._directory = directory
        self._pattern = pattern
        self._descriptors: dict[Path, int] = {}
        self._failure: tuple[Path, OSError] | None = None
        self._ended = Event()
        self._thread = Thread(target=self._run, name="write-back")

    def confirm(self) -> None:
        """End, and raise what failed: the kernel tells of it once, so who syncs later may not learn of it.

        Raises:
            StorageError: The disk is full or failed.
        """
        self._end()
        if self._failure is not None:
            path, error = self._failure
            with writing(path):
                raise error

    def _run(self) -> None:
        while not self._ended.wait(_INTERVAL):
            for path in self._directory.glob(self._pattern):
                try:
                    if path not in self._descriptors:
                        self._descriptors[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    os.fdatasync(self._descriptors[path])
                except FileNotFoundError:
                    continue
                except OSError as error:
                    self._failure = path, error
                    return

    def _end(self) -> None:
        self._ended.set()
        self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()
        for descriptor in self._descriptors.values():
            os.close(descriptor)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal to read into our errors.

    Args:
        path: What is read.

    Raises:
        UserError: The path does not exist or can't be read.
        StorageError: The disk failed.
    """
    try:
        yield
    except OSError as error:
        if error.errno == errno.EIO:
            raise StorageError(f"{path} can't be read: {error.strerror}", remedy="check the disk") from None
        raise UserError(
            f"{path} can't be read: {error.strerror or error}", remedy="name a file that exists and that you may read"
        ) from None
