"""``sconify cas serve``: run a CAS."""

from __future__ import annotations

import logging
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import click

from sconify.attestation import simulated, vm
from sconify.attestation.authorities import parse_test_roots
from sconify.attestation.judge import Mode
from sconify.cas import request_log
from sconify.cas.collateral import renew_for_ever
from sconify.cas.collateral_fetch import AMD_KDS, INTEL_PCS, HttpFetcher
from sconify.cas.server import Address, CasServer
from sconify.cas.service import Cas
from sconify.cli.cas_store import master_key_options, master_key_provider, store_options
from sconify.errors import ServiceError
from sconify.las.choice import vm_provider
from sconify.policy.keyhash import decode_key_hash, encode_key_hash

_CHECKPOINT_SECONDS = 10


class _AddressType(click.ParamType[Address]):
    """``HOST:PORT``, ``[IPv6]:PORT`` or ``:PORT`` (all addresses)."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """Parse an address."""
        if isinstance(value, Address):
            return value
        host, separator, port = str(value).rpartition(":")
        if not separator or not port.isascii() or not port.isdigit() or int(port) > 65535:
            self.fail(f"got {value!r}, expected HOST:PORT with a port from 0 (a free one) to 65535", param, ctx)
        return Address(host=host.removeprefix("[").removesuffix("]") or "0.0.0.0", port=int(port))  # noqa: S104


@click.command()
@store_options
@click.option(
    "--client-listen",
    type=_AddressType(),
    multiple=True,
    default=["0.0.0.0:8081"],
    show_default=True,
    help="Address of the client API; may be repeated.",
)
@click.option(
    "--enclave-listen",
    type=_AddressType(),
    multiple=True,
    default=["0.0.0.0:18765"],
    show_default=True,
    help="Address of the enclave API; may be repeated.",
)
@click.option(
    "--debug/--production",
    "debug",
    default=False,
    help="Debug accepts simulated evidence where a policy tolerates it: for tests only.  [default: production]",
)
@master_key_options
@click.option(
    "--pcs",
    metavar="URL",
    default=INTEL_PCS,
    show_default=True,
    help="Intel's PCS or a PCCS: where collateral is from.",
)
@click.option(
    "--kds",
    metavar="URL",
    default=AMD_KDS,
    show_default=True,
    help="AMD's KDS or a mirror: where certificates are from.",
)
@click.option("--no-fetch", is_flag=True, help="Fetch no collateral: use what `sconify cas collateral import` took in.")
@click.option(
    "--test-root",
    "test_root_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    metavar="FILE",
    help="PEM file with roots that are trusted as Intel's and AMD's are; for tests, with --debug only.",
)
@click.option(
    "--accept-older-database",
    is_flag=True,
    help="Start although the database is older than the audit log has seen it: a restored backup.",
)
@click.option(
    "--require-provisioning",
    is_flag=True,
    help="Serve nothing before an owner has shown the token that is printed (`sconify cas provision`).",
)
@click.option(
    "--rate-limit",
    type=click.FloatRange(min=0),
    default=500,
    show_default=True,
    help="Requests a second that each address may send to each API; 0: as many as it likes.",
)
@click.option(
    "--evidence",
    type=click.Choice(["auto", vm.TDX, vm.SNP, simulated.KIND]),
    default="auto",
    show_default=True,
    help="Whose evidence the CAS shows of itself; auto takes this VM's hardware, else the simulated platform.",
)
@click.option("--console/--no-console", default=True, show_default=True, help="Pages for people at /console.")
@click.option(
    "--operator",
    "operators",
    multiple=True,
    metavar="HASH",
    help="Key hash of who may see everything at /console, besides the owner; may be repeated.",
)
@click.option("--ready-fd", type=click.IntRange(min=1), help="Write a line to this descriptor when the CAS serves.")
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How the log on stderr is written; json: one object a line.",
)
@click.option("--quiet", is_flag=True, help="Log warnings and errors only, not each request.")
def serve(
    *,
    state_dir: Path,
    client_listen: tuple[Address, ...],
    enclave_listen: tuple[Address, ...],
    debug: bool,
    master_key_file: Path | None,
    passphrase_file: Path | None,
    kms_url: str | None,
    database_url: str | None,
    pcs: str,
    kds: str,
    no_fetch: bool,
    test_root_files: tuple[Path, ...],
    accept_older_database: bool,
    require_provisioning: bool,
    rate_limit: float,
    evidence: str,
    console: bool,
    operators: tuple[str, ...],
    ready_fd: int | None,
    log_format: str,
    quiet: bool,
) -> None:
    """Run a CAS until SIGTERM or SIGINT."""
    request_log.configure(form=log_format, quiet=quiet)
    # Alembic reports each start at this level.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Each connection takes a descriptor; the usual soft limit is far below what the machine allows.
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    mode = Mode.DEBUG if debug else Mode.PRODUCTION
    provider = master_key_provider(state_dir, file=master_key_file, passphrase_file=passphrase_file, kms_url=kms_url)
    cas = Cas(
        state_dir,
        mode=mode,
        master_key=provider,
        database_url=database_url,
        fetcher=None if no_fetch else HttpFetcher(pcs=pcs, kds=kds),
        test_roots=[root for file in test_root_files for root in parse_test_roots(file.read_bytes(), name=str(file))],
        accept_older_database=accept_older_database,
        require_provisioning=require_provisioning,
        rate_limit=rate_limit,
        hardware=vm_provider(evidence),
        console=console,
        operators=[encode_key_hash(decode_key_hash(operator)) for operator in operators],
    )
    threading.Thread(target=renew_for_ever, args=[cas.collateral, stop], name="collateral", daemon=True).start()
    try:
        with CasServer(cas, client_addresses=client_listen, enclave_addresses=enclave_listen) as server:
            click.echo(f"CAS key hash: {cas.key.key_hash}")
            click.echo(f"CAS key: {cas.key.pin}")
            click.echo(f"Mode: {mode.value}")
            for address in server.client_addresses:
                click.echo(f"Client API: https://{address}")
            for address in server.enclave_addresses:
                click.echo(f"Enclave API: https://{address}")
            if cas.provisioning.token is not None:
                click.echo(f"Provisioning token: {cas.provisioning.token}")
            sys.stdout.flush()
            if ready_fd is not None:
                _notify(ready_fd)
            checkpoint = time.monotonic()
            while not stop.wait(1):
                server.check()
                if time.monotonic() - checkpoint >= _CHECKPOINT_SECONDS:
                    cas.checkpoint()
                    checkpoint = time.monotonic()
            cas.health.stopping = True
    finally:
        cas.close()


def _notify(descriptor: int) -> None:
    try:
        os.write(descriptor, b"ready\n")
        os.close(descriptor)
    except OSError as error:
        raise ServiceError(f"--ready-fd={descriptor}: {error.strerror}", remedy="pass an open descriptor") from None
