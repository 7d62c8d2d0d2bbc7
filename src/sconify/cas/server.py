"""The CAS on the network: one HTTPS listener for each address."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from cheroot import wsgi

from sconify.cas.http import Api
from sconify.cas.service import Cas
from sconify.cas.tls import DeadlineConnection, TlsAdapter
from sconify.errors import ServiceError, UserError

_THREADS = 32
_MAX_HEADER = 16 << 10
_IDLE_CONNECTIONS = 1000
_BACKLOG = 512

_log = logging.getLogger("sconify.cas")


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a listener binds; port 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class CasServer:
    """Serves a CAS; use it as a context manager, or call ``start`` and ``stop``.

    Args:
        cas: What is served.
        client_addresses: Where the client API listens.
        enclave_addresses: Where the enclave API listens.
    """

    def __init__(self, cas: Cas, *, client_addresses: Sequence[Address], enclave_addresses: Sequence[Address]) -> None:
        client_tls = TlsAdapter(cas.key, ask_for_certificate=True)
        enclave_tls = TlsAdapter(cas.key, ask_for_certificate=False)
        self._clients = [
            _Listener(address, cas.client_api, client_tls, flag="--client-listen") for address in client_addresses
        ]
        self._enclaves = [
            _Listener(address, cas.enclave_api, enclave_tls, flag="--enclave-listen") for address in enclave_addresses
        ]

    def start(self) -> None:
        """Bind all addresses, then serve in threads.

        Raises:
            UserError: An address is in use or is not this machine's; the message names the flag.
        """
        bound = []
        try:
            for listener in (*self._clients, *self._enclaves):
                listener.open()
                bound.append(listener)
        except UserError:
            for listener in bound:
                listener.stop()
            raise
        for listener in bound:
            listener.serve_in_thread()

    def check(self) -> None:
        """Make sure that all listeners still serve.

        Raises:
            ServiceError: One has ended, which only a failure of the machine can make it do.
        """
        for listener in (*self._clients, *self._enclaves):
            if not listener.serving:
                raise ServiceError(f"the listener on {listener.bound} failed", remedy="see the log, and start it again")

    def stop(self) -> None:
        """Finish the requests at hand and stop."""
        for listener in (*self._clients, *self._enclaves):
            listener.stop()

    @property
    def client_addresses(self) -> list[Address]:
        """The bound addresses of the client API."""
        return [listener.bound for listener in self._clients]

    @property
    def enclave_addresses(self) -> list[Address]:
        """The bound addresses of the enclave API."""
        return [listener.bound for listener in self._enclaves]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.stop()


class _Gateway(wsgi.Gateway_10):
    """Ends a connection when the application says so; cheroot would only pass the header on."""

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if ("Connection", "close") in headers:
            self.req.close_connection = True
        return super().start_response(status, headers, exc_info)


class _Listener(wsgi.Server):
    """One address and its threads."""

    ConnectionClass = DeadlineConnection
    max_request_header_size = _MAX_HEADER
    keep_alive_conn_limit = _IDLE_CONNECTIONS
    shutdown_timeout = 3
    expiration_interval = 0.25

    def __init__(self, address: Address, api: Api, tls: TlsAdapter, *, flag: str) -> None:
        super().__init__(
            (address.host, address.port), api, numthreads=_THREADS, server_name="cas", request_queue_size=_BACKLOG
        )
        self.ssl_adapter = tls
        self.gateway = _Gateway
        self._address = address
        self._flag = flag
        self._cause: OSError | None = None

    @property
    def bound(self) -> Address:
        """The address with its real port."""
        host, port = self.bind_addr
        return Address(host=host, port=port)

    def open(self) -> None:
        """Bind the address and listen.

        Raises:
            UserError: The address is in use or is not this machine's.
        """
        try:
            self.prepare()
        except OSError:
            remedy = f"give {self._flag}=HOST:PORT with an address of this machine"
            if self._cause is not None and self._cause.errno == errno.EADDRINUSE:
                what = f"port {self._address.port} of {self._address.host} is in use"
                remedy = f"stop what listens there, or give {self._flag}=HOST:PORT"
            else:
                why = self._cause.strerror if self._cause is not None else "no such address"
                what = f"can't listen on {self._address}: {why}"
            raise UserError(what, remedy=remedy) from None

    def bind(self, family: int, type: int, proto: int = 0) -> Any:  # noqa: A002 - cheroot's name
        """Bind the socket, and keep the reason of a failure, which cheroot makes text of."""
        try:
            return super().bind(family, type, proto)
        except OSError as error:
            self._cause = error
            raise

    def serve_in_thread(self) -> None:
        """Serve until ``stop``."""
        self._thread = threading.Thread(target=self._serve, name=f"listener {self._address}", daemon=True)
        self._thread.start()

    @property
    def serving(self) -> bool:
        """Whether the listener still serves."""
        return self._thread.is_alive()

    def _serve(self) -> None:
        try:
            self.serve()
        except Exception as error:
            _log.error("the listener on %s failed: %s", self.bound, type(error).__name__)

    def process_conn(self, conn: Any) -> None:
        """Give a connection to a thread only once it has sent something."""
        if conn.last_used is None:
            self._connections.put(conn)  # type: ignore[attr-defined]
        else:
            super().process_conn(conn)

    def error_log(self, msg: str = "", level: int = logging.INFO, traceback: bool = False) -> None:
        """Log what cheroot reports; of an exception only its type, for the rest may show what a request held."""
        _log.log(level, "%s", f"internal error: {msg.partition('(')[0]}" if traceback else msg)
