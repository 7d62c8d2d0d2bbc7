"""File systems of their own, on disks that can be made to fail."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.containers import run

_SHUTDOWN = 0x8004587D
"""``EXT4_IOC_SHUTDOWN`` (Linux, fs/ext4/ext4.h), the same as XFS's."""
_NO_LOG_FLUSH = 2


@dataclass(frozen=True)
class Disk:
    """A file system on a loop device, whose file is in memory of limited size.

    Attributes:
        path: Where it is mounted.
        memory: Where the memory is.
    """

    path: Path
    memory: Path

    @property
    def store(self) -> Path:
        """A directory for a volume."""
        return self.path / "store"

    def shut_down(self) -> None:
        """Have it fail for good, as a disk that is gone, without writing what it has in memory."""
        directory = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(directory)

    def mount_again(self) -> None:
        """Unmount and mount it, as after the machine was started again."""
        image = self.memory / "disk"
        _unmount(self.path)
        # A container that is being made or removed may have a copy of the mount: what failed would be mounted again.
        deadline = time.monotonic() + 30
        while _device(image) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _device(image), "the file system that was unmounted is still in use"
        _mount(image, self.path)

    def forget(self) -> None:
        """Have the kernel drop what it has of the store in memory, what it could not write included."""
        for path in self.store.iterdir():
            file = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(file)

    def resize(self, mebibytes: int) -> None:
        """Let the disk take that much; beyond it, writes that the file system has taken fail."""
        run("mount", "-o", f"remount,size={mebibytes}m", str(self.memory))


MAKE = "mkfs.ext4 -q -F -N 1024 -J size=4 -E packed_meta_blocks=1,lazy_itable_init=0"
"""A file system whose journal, bitmaps and inodes are all in the first ``_TABLES`` bytes of its disk."""
_TABLES = 16 << 20


@contextmanager
def disk(directory: Path, *, make: str = MAKE, mebibytes: int = 512) -> Iterator[Disk]:
    """Make a file system of 512 MiB.

    Args:
        directory: An empty directory.
        make: The command that makes it, to which the file is added.
        mebibytes: How much of it there really is.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can mount file systems")
    memory, path = directory / "memory", directory / "disk"
    memory.mkdir()
    path.mkdir()
    mounted: list[Path] = []
    try:
        run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(memory))
        mounted.append(memory)
        image = memory / "disk"
        with image.open("wb") as file:
            file.truncate(512 << 20)
        run(*make.split(), str(image))
        with image.open("r+b") as file:
            # A full disk then refuses contents, which a file system survives, and not its journal, which ends it.
            os.posix_fallocate(file.fileno(), 0, _TABLES)
        _mount(image, path)
        mounted.append(path)
        made = Disk(path, memory)
        made.store.mkdir()
        run("sync", "--file-system", str(path))
        yield made
    finally:
        for mount in reversed(mounted):
            _unmount(mount)


def _mount(image: Path, path: Path) -> None:
    """Mount a file, by requests of a page each: the loop device reports one that memory takes in part as written."""
    run("mount", "-o", "loop", str(image), str(path))
    Path("/sys/block", Path(_device(image)).name, "queue/max_sectors_kb").write_text("4\n")


def _device(image: Path) -> str:
    """Return the loop device of a file, or nothing."""
    return run("losetup", "--noheadings", "--output=NAME", "--associated", str(image)).stdout.strip()


def _unmount(path: Path) -> None:
    """Unmount; the kernel lets a loop device go a moment after the file system on it."""
    for _ in range(50):
        if run("umount", str(path), check=False).returncode == 0:
            return
        time.sleep(0.2)
    run("umount", "--lazy", str(path))
