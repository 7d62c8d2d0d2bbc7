"""A PostgreSQL server of our own on a free port, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql_server() -> Iterator[str]:
    """Run a server until the block ends; yields the URL of an empty database."""
    if not _BINARIES:
        pytest.skip("PostgreSQL is not installed: scripts/system-packages.sh installs it")
    # Not below pytest's directories, which are root's alone: PostgreSQL refuses to run as root.
    with tempfile.TemporaryDirectory(prefix="sconify-postgresql-") as name:
        yield from _server(Path(name))


def _server(directory: Path) -> Iterator[str]:
    binaries = _BINARIES[-1]
    prefix: list[str] = []
    if os.getuid() == 0:
        shutil.chown(directory, "postgres", "postgres")
        prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    data = directory / "data"

    def run(*command: str | Path) -> None:
        subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, cwd="/")

    run(binaries / "initdb", "--auth=trust", "--username=cas", "--no-sync", "--encoding=UTF8", "-D", data)
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c max_connections=200"
    run(binaries / "pg_ctl", "-D", data, "-l", directory / "log", "-o", options, "-w", "start")
    try:
        yield f"postgresql://cas@127.0.0.1:{port}/postgres"
    finally:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "-t", "300", "stop")
