"""A PostgreSQL server of our own on a free port, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@contextmanager
def postgresql_server(directory: Path) -> Iterator[str]:
    """Run a server with its data in a directory until the block ends; yields the URL of an empty database."""
    if not _BINARIES:
        pytest.skip("PostgreSQL is not installed: scripts/system-packages.sh installs it")
    binaries = _BINARIES[-1]
    directory.mkdir(parents=True)
    prefix: list[str] = []
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(directory, "postgres", "postgres")
        for parent in directory.parents:
            if parent.stat().st_mode & 0o001 == 0:
                parent.chmod(parent.stat().st_mode | 0o011)
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
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
