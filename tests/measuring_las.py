"""A LAS of a stand-in for a confidential VM."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sconify.las.server import LasServer
from sconify.las.tsm import KINDS, Tsm
from sconify.las.vm import VmProvider
from tests.tsm import KernelTsm


@contextmanager
def measuring_las(directory: Path, kernel: KernelTsm) -> Iterator[str]:
    """Serve in this process; yields the address of its unix socket."""
    directory.mkdir(exist_ok=True)
    server = LasServer([VmProvider(KINDS[kernel.provider], Tsm(kernel))])
    server.listen_unix(directory / "las.sock")
    server.start()
    try:
        yield f"unix:{directory / 'las.sock'}"
    finally:
        server.stop()
