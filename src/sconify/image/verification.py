"""Digests of layers, computed while the layers are read already: nothing may be published before all are right."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Condition
from types import TracebackType
from typing import Self

from sconify.errors import UntrustedDataError
from sconify.image.compression import views
from sconify.image.model import Extent
from sconify.image.storage import reading

_Stamp = tuple[int, int, int, int]
"""What changes when a file is changed or replaced: device, inode, size, time of change in nanoseconds."""


class Verification:
    """Computes digests on threads of its own.

    A context manager: leaving it ends what is not done. It says nothing of what it found; ``confirm`` does.
    """

    def __init__(self) -> None:
        # Hashing and reading release the interpreter's lock.
        self._pool = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="verify")
        self._checks: list[Future[None]] = []
        self._stamps: dict[Path, _Stamp] = {}
        self._changed = Condition()
        self._rest = 0
        self._left = 0
        self._ended = False

    def add(self, extent: Extent, check: Callable[[str], None]) -> None:
        """Have an extent's digest, ``sha256:`` and 64 hexadecimal digits, computed and given to ``check``.

        Args:
            extent: The bytes. Their file must not change before ``confirm``.
            check: Raises an ``UntrustedDataError`` if that is not the right one; called on another thread.

        Raises:
            UserError: There is no such file.
        """
        self._stamps.setdefault(extent.source, _stamp(extent.source))
        with self._changed:
            self._rest += extent.size
        self._checks.append(self._pool.submit(self._run, extent, check))

    def confirm(self) -> None:
        """Wait for all digests that were not confirmed yet; after that their files may change.

        Raises:
            UntrustedDataError: One is wrong, or a file was changed: others may have read what was not hashed.
            UserError: A file can't be read.
            ServiceError: The disk failed.
        """
        for check in self._checks:
            check.result()
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise UntrustedDataError(f"{path} was changed while it was read")
        self._checks.clear()
        self._stamps.clear()

    def raise_mismatch(self) -> None:
        """Raise the error of a digest that is wrong, if there is one: it explains what else went wrong.

        Raises:
            UntrustedDataError: One is wrong, or a file became shorter.
        """
        for check in self._checks:
            error = check.exception()
            if isinstance(error, UntrustedDataError):
                raise error

    @contextmanager
    def leaving(self, size: int) -> Iterator[None]:
        """Leave the last bytes for after a block that keeps all processors busy, if then there is one to spare.

        Args:
            size: How many bytes.
        """
        self._leave(size)
        try:
            yield
        finally:
            self._leave(0)

    def _leave(self, size: int) -> None:
        with self._changed:
            self._left = size
            self._changed.notify_all()

    def _may_go_on(self) -> bool:
        return self._ended or self._rest > self._left

    def _run(self, extent: Extent, check: Callable[[str], None]) -> None:
        digest = hashlib.sha256()
        for chunk in views(extent):
            with self._changed:
                self._changed.wait_for(self._may_go_on)
                self._rest -= len(chunk)
            if self._ended:
                return
            digest.update(chunk)
        check(f"sha256:{digest.hexdigest()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._ended = True
        self._leave(0)
        self._pool.shutdown(wait=True, cancel_futures=True)


def _stamp(path: Path) -> _Stamp:
    with reading(path):
        status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
