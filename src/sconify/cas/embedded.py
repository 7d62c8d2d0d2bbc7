"""The embedded CAS and LAS: started on this machine when an image is converted without ``--cas``, for tests.

Both run detached, in debug mode, and stay until they are stopped or the machine is. They listen on the loopback address
and on the container bridges of this machine, never on its outer interfaces.

Addresses are written into converted images, so the ports of the last run are taken again whenever they are free.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sconify import __version__
from sconify.cas.attest import attest_cas
from sconify.cas.attested import CasAddress
from sconify.cas.bridges import bridge_addresses
from sconify.cas.daemon import Daemon
from sconify.cas.embedded_state import (
    Ports,
    State,
    default_state_directory,
    locked,
    read_state,
    write_state,
)
from sconify.errors import ServiceError, UntrustedDataError
from sconify.las.request import LasAddress, request_info

_LOOPBACK = "127.0.0.1"
_READY_TIMEOUT = 30.0
_PROBE_TIMEOUT = 3.0
_PORT_ATTEMPTS = 32
_START_ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class EmbeddedServices:
    """The embedded CAS and LAS, running.

    Attributes:
        cas_host: Host of the CAS's client API, for programs on this machine.
        client_port: Port of the client API, on the loopback address only.
        enclave_port: Port of the enclave API.
        las_port: Port of the LAS.
        addresses: What enclave API and LAS listen on: the loopback address and the container bridges.
        key: SHA-256 of the CAS key's SubjectPublicKeyInfo, 32 bytes.
        started: Whether this call started them.
        cas: The process of the CAS.
        las: The process of the LAS.
    """

    cas_host: str
    client_port: int
    enclave_port: int
    las_port: int
    addresses: tuple[str, ...]
    key: bytes
    started: bool
    cas: Daemon
    las: Daemon

    @property
    def cas_address(self) -> str:
        """``SCONE_CAS_ADDR`` for containers: the runtime goes on from ``localhost`` to its default gateway."""
        return f"localhost:{self.enclave_port}"

    @property
    def las_address(self) -> str:
        """``SCONE_LAS_ADDR`` for containers."""
        return f"localhost:{self.las_port}"


def ensure_embedded(state_dir: Path | None = None) -> EmbeddedServices:
    """Return the embedded services; start them, or start them anew when they can't be used as they are.

    They are started anew when one of them died or hangs, when they are of another version of this program, and when a
    container bridge has appeared that they do not listen on.

    Args:
        state_dir: Where their state is; None takes the default.

    Raises:
        ServiceError: They could not be started in time; the message has the end of the log.
    """
    state_dir = state_dir or default_state_directory()
    with locked(state_dir):
        addresses = (_LOOPBACK, *bridge_addresses())
        state = read_state(state_dir)
        if state is not None:
            if state.version == __version__ and set(addresses) <= set(state.addresses) and _is_ready(state):
                return _services(state, started=False)
            state.cas.stop()
            state.las.stop()
        return _services(_start(state_dir, addresses, state.ports if state else Ports()), started=True)


def embedded_status(state_dir: Path | None = None) -> EmbeddedServices | None:
    """Return the embedded services if they run and answer, or None.

    Raises:
        ServiceError: The state can't be read.
    """
    state_dir = state_dir or default_state_directory()
    if not state_dir.exists():
        return None
    with locked(state_dir):
        state = read_state(state_dir)
        return _services(state, started=False) if state is not None and _is_ready(state) else None


def embedded_key(state_dir: Path | None = None) -> bytes | None:
    """Return the key of the embedded CAS, running or not, or None if there was none yet; nothing is started."""
    state = read_state(state_dir or default_state_directory())
    return None if state is None else state.key


def stop_embedded(state_dir: Path | None = None) -> bool:
    """Stop the embedded services; what the CAS stores stays.

    Returns:
        Whether any of them ran.

    Raises:
        ServiceError: The state can't be read.
    """
    state_dir = state_dir or default_state_directory()
    if not state_dir.exists():
        return False
    with locked(state_dir):
        state = read_state(state_dir)
        if state is None:
            return False
        ran = [state.cas.stop(), state.las.stop()]
        return any(ran)


def _start(state_dir: Path, addresses: tuple[str, ...], wanted: Ports) -> State:
    """Start both, on other ports than those wanted where these are taken."""
    for _ in range(_START_ATTEMPTS - 1):
        ports = _free_ports(wanted, addresses)
        try:
            return _start_on(ports, state_dir, addresses)
        except ServiceError:
            # Somebody else's services, that are started at this moment, may have taken a port since we looked.
            if _free_ports(ports, addresses) == ports:
                raise
    return _start_on(_free_ports(wanted, addresses), state_dir, addresses)


def _start_on(ports: Ports, state_dir: Path, addresses: tuple[str, ...]) -> State:
    las_arguments = [
        "las",
        "serve",
        "--provider=simulated",
        *(f"--listen={address}:{ports.las}" for address in addresses),
    ]
    cas_arguments = [
        *("cas", "serve", "--debug", f"--state-dir={state_dir / 'cas'}"),
        f"--client-listen={_LOOPBACK}:{ports.client}",
        *(f"--enclave-listen={address}:{ports.enclave}" for address in addresses),
    ]
    with _launched(las_arguments, state_dir / "las.log") as las, _launched(cas_arguments, state_dir / "cas.log") as cas:
        # Written before anybody waits, so that a command that is killed here leaves nothing that can't be found.
        write_state(state_dir, State(__version__, addresses, ports, None, cas.daemon, las.daemon))
        deadline = time.monotonic() + _READY_TIMEOUT
        las.wait(deadline)
        cas.wait(deadline)
        state = State(__version__, addresses, ports, _attested_key(ports), cas.daemon, las.daemon)
        write_state(state_dir, state)
    return state


@dataclass(frozen=True)
class _Launched:
    """A service that was started and is not ready yet."""

    daemon: Daemon
    ready: int
    """The reading end of the pipe to which it writes when it serves."""

    def wait(self, deadline: float) -> None:
        """Wait until it serves.

        Raises:
            ServiceError: It ended, or it does not serve in time.
        """
        readable = select.select([self.ready], [], [], max(0.0, deadline - time.monotonic()))[0]
        if readable and os.read(self.ready, 64):
            return
        how = "ended at once" if readable else f"did not serve within {_READY_TIMEOUT:g} s"
        raise ServiceError(
            f"the embedded {self.daemon.log.stem.upper()} {how}; the end of its log:\n{self.daemon.log_tail()}",
            remedy=f"see {self.daemon.log}, or name a CAS with --cas=HOST:PORT",
        )


@contextmanager
def _launched(arguments: Sequence[str], log: Path) -> Iterator[_Launched]:
    """Start a service, and stop it if the block that waits for it fails."""
    ready, write_end = os.pipe()
    try:
        try:
            daemon = Daemon.start(arguments, log=log, ready_fd=write_end)
        finally:
            os.close(write_end)
        try:
            yield _Launched(daemon, ready)
        except BaseException:
            daemon.stop()
            raise
    finally:
        os.close(ready)


def _is_ready(state: State) -> bool:
    if state.key is None or not (state.cas.is_alive() and state.las.is_alive()):
        return False
    try:
        request_info(LasAddress(_LOOPBACK, state.ports.las, None), timeout=_PROBE_TIMEOUT)
        return _attested_key(state.ports) == state.key
    except (ServiceError, UntrustedDataError):
        return False


def _attested_key(ports: Ports) -> bytes:
    address = CasAddress(_LOOPBACK, ports.client)
    return attest_cas(address, allow_debug=True, timeout=_PROBE_TIMEOUT, retries=0).key_sha256


def _free_ports(wanted: Ports, addresses: tuple[str, ...]) -> Ports:
    client = _free_port(wanted.client, (_LOOPBACK,), taken=())
    enclave = _free_port(wanted.enclave, addresses, taken=(client,))
    return Ports(client, enclave, _free_port(wanted.las, addresses, taken=(client, enclave)))


def _free_port(wanted: int, addresses: tuple[str, ...], *, taken: tuple[int, ...]) -> int:
    """Return the wanted port if it is free on all addresses, or else another one that is."""
    for candidate in (wanted, *(0 for _ in range(_PORT_ATTEMPTS))):
        with suppress(OSError):
            with socket.create_server((_LOOPBACK, candidate)) as probe:
                port: int = probe.getsockname()[1]
            for address in addresses:
                socket.create_server((address, port)).close()
            if port not in taken:
                return port
    raise ServiceError(
        f"no port is free on all of {', '.join(addresses)} for the embedded services",
        remedy="name a CAS with --cas=HOST:PORT",
    )


def _services(state: State, *, started: bool) -> EmbeddedServices:
    assert state.key is not None
    return EmbeddedServices(
        cas_host=_LOOPBACK,
        client_port=state.ports.client,
        enclave_port=state.ports.enclave,
        las_port=state.ports.las,
        addresses=state.addresses,
        key=state.key,
        started=started,
        cas=state.cas,
        las=state.las,
    )
