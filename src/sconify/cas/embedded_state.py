"""What is recorded about the embedded CAS and LAS between commands.

The state directory, ``$XDG_DATA_HOME/sconify/embedded`` (by default ``~/.local/share/sconify/embedded``), has::

    lock            held while somebody starts, stops or looks at them
    services.json   processes, addresses, ports and key of the running or last run services
    cas/            the store of the CAS
    cas.log las.log
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sconify.cas.attested import DEFAULT_CLIENT_PORT, DEFAULT_ENCLAVE_PORT
from sconify.cas.daemon import Daemon
from sconify.errors import ServiceError
from sconify.las.request import DEFAULT_PORT as DEFAULT_LAS_PORT


@dataclass(frozen=True)
class Ports:
    """The ports that they listen on: client API, enclave API, LAS."""

    client: int = DEFAULT_CLIENT_PORT
    enclave: int = DEFAULT_ENCLAVE_PORT
    las: int = DEFAULT_LAS_PORT


@dataclass(frozen=True)
class State:
    """What ``services.json`` says."""

    version: str
    """The version of this program that started them."""
    addresses: tuple[str, ...]
    """What enclave API and LAS listen on."""
    ports: Ports
    key: bytes | None
    """SHA-256 of the CAS key's SubjectPublicKeyInfo; None until the CAS was ready once."""
    cas: Daemon
    las: Daemon


def default_state_directory() -> Path:
    """Return ``$XDG_DATA_HOME/sconify/embedded``, or ``~/.local/share/sconify/embedded``."""
    base = os.environ.get("XDG_DATA_HOME")
    # The XDG specification says to pass over a relative path.
    return (
        (Path(base) if base and Path(base).is_absolute() else Path.home() / ".local" / "share") / "sconify" / "embedded"
    )


@contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """Make the state directory if need be, and hold its lock.

    Raises:
        ServiceError: The directory can't be used.
    """
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        state_dir.chmod(0o700)
        with (state_dir / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise ServiceError(
            f"the state of the embedded services in {state_dir} can't be used: {error.strerror or error}",
            remedy="set XDG_DATA_HOME to a directory of your own, or name a CAS with --cas=HOST:PORT",
        ) from error


def read_state(state_dir: Path) -> State | None:
    """Return the recorded state; a file that is missing or damaged records nothing."""
    try:
        document: Any = json.loads((state_dir / "services.json").read_bytes())
        client, enclave, las = (document["ports"][name] for name in ("client", "enclave", "las"))
        key = document["key"]
        if not all(isinstance(port, int) and 0 < port < 65536 for port in (client, enclave, las)):
            raise ValueError("no ports")
        return State(
            str(document["version"]),
            tuple(str(address) for address in document["addresses"]),
            Ports(client, enclave, las),
            None if key is None else bytes.fromhex(key),
            Daemon.from_json(document["cas"], log=state_dir / "cas.log"),
            Daemon.from_json(document["las"], log=state_dir / "las.log"),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_state(state_dir: Path, state: State) -> None:
    """Record the state as a whole or not at all."""
    document = {
        "version": state.version,
        "addresses": list(state.addresses),
        "ports": {"client": state.ports.client, "enclave": state.ports.enclave, "las": state.ports.las},
        "key": None if state.key is None else state.key.hex(),
        "cas": state.cas.to_json(),
        "las": state.las.to_json(),
    }
    new = state_dir / "services.json.new"
    new.write_text(json.dumps(document, indent=2) + "\n")
    new.replace(state_dir / "services.json")
