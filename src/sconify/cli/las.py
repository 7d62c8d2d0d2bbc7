"""``sconify las``: run a local attestation service."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path

import click

from sconify.attestation import simulated, vm
from sconify.errors import UserError
from sconify.las.choice import vm_provider
from sconify.las.provider import Provider
from sconify.las.request import DEFAULT_PORT, LasAddress
from sconify.las.server import LasServer
from sconify.las.simulated import SimulatedProvider

_WARNING = (
    "WARNING: this LAS gives SIMULATED evidence. Anybody can forge it: it proves NOTHING about this machine or what "
    "runs on it. It is for development and tests only; a CAS in production mode refuses it."
)


@click.group()
def las() -> None:
    """Local attestation service: gives evidence of what runs on this host."""


@las.command()
@click.option(
    "--listen",
    "listen",
    multiple=True,
    metavar="HOST:PORT",
    help=f"TCP address to listen on; repeatable.  [default: 127.0.0.1:{DEFAULT_PORT}, without --socket]",
)
@click.option("--socket", "sockets", multiple=True, metavar="PATH", help="Unix socket to listen on; repeatable.")
@click.option(
    "--provider",
    "provider_name",
    type=click.Choice(["auto", vm.TDX, vm.SNP, simulated.KIND]),
    default="auto",
    show_default=True,
    help="Whose evidence to give; auto takes this VM's hardware, else the simulated platform.",
)
@click.option("--debug", is_flag=True, help="Log connections that end without a request as well.")
@click.option("--ready-fd", type=click.IntRange(min=1), help="Write a line to this descriptor when the LAS serves.")
def serve(
    listen: tuple[str, ...], sockets: tuple[str, ...], provider_name: str, debug: bool, ready_fd: int | None
) -> None:
    """Serve evidence of this host until SIGTERM or Ctrl-C.

    In a confidential VM it runs as root, and measures who asks: so only its unix sockets give evidence.
    """
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO,
        format="%(asctime)s las %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    provider: Provider = vm_provider(provider_name) or SimulatedProvider()
    if provider.measures_callers and not sockets:
        raise UserError(
            f"{provider.kind} evidence is given over a unix socket only, for nobody else can be measured",
            remedy="give --socket=PATH, and set SCONE_LAS_ADDR=unix:PATH where programs run",
        )
    if not listen and not sockets:
        listen = (f"127.0.0.1:{DEFAULT_PORT}",)
    server = LasServer([provider])
    shown = []
    for text in listen:
        address = LasAddress.parse(text)
        if address.host is None:
            raise UserError(f"--listen={text} is no HOST:PORT", remedy="name unix sockets with --socket=PATH")
        port = server.listen_tcp(address.host, address.port)
        shown.append(str(LasAddress(address.host, port, None)))
    for path in sockets:
        server.listen_unix(Path(path))
        shown.append(f"unix:{path}")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    if provider.kind == simulated.KIND:
        click.echo(_WARNING, err=True)
    server.start()
    click.echo(f"LAS listens on {', '.join(shown)}; offers: {provider.kind} evidence", err=True)
    try:
        if ready_fd is not None:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        ended.wait()
    finally:
        server.stop()
