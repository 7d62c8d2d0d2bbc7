"""``sconify embedded``: the CAS and LAS for tests that conversions without ``--cas`` use."""

from __future__ import annotations

import click

from sconify.cas.embedded import EmbeddedServices, embedded_status, ensure_embedded, stop_embedded
from sconify.errors import ServiceError
from sconify.policy.keyhash import encode_key_hash


@click.group()
def embedded() -> None:
    """The CAS and LAS for tests on this machine, which conversions without --cas start and use."""


@embedded.command()
def start() -> None:
    """Start them if they do not run, as after a restart of the machine."""
    _show(ensure_embedded())


@embedded.command()
def status() -> None:
    """Show where they listen; exit code 4 when they do not run."""
    services = embedded_status()
    if services is None:
        raise ServiceError("the embedded CAS and LAS do not run", remedy="run `sconify embedded start`")
    _show(services)


@embedded.command()
def stop() -> None:
    """Stop them; sessions are kept."""
    click.echo("stopped" if stop_embedded() else "not running")


def _show(services: EmbeddedServices) -> None:
    everywhere = ", ".join(services.addresses)
    click.echo(f"CAS client API: {services.cas_host}:{services.client_port} (pid {services.cas.pid})")
    click.echo(f"CAS enclave API: port {services.enclave_port} on {everywhere}")
    click.echo(f"LAS: port {services.las_port} on {everywhere} (pid {services.las.pid})")
    click.echo(f"CAS key hash: {encode_key_hash(services.key)}")
    click.echo(f"Logs: {services.cas.log} {services.las.log}")
    click.echo("Debug mode, simulated evidence: for tests only", err=True)
