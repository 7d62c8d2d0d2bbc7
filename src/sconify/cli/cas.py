"""``sconify cas``: attest CASes and see which ones are known; run one and look after it."""

from __future__ import annotations

import click
from cryptography.hazmat.primitives.serialization import Encoding

from sconify import __version__
from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.client_config import ClientConfig
from sconify.cas.connection import CasConnection
from sconify.cli.lazy import LazyGroup
from sconify.errors import UserError

_LAZY = {
    "attest": "sconify.cli.cas_attest:attest",
    "collateral": "sconify.cli.cas_collateral:collateral",
    "serve": "sconify.cli.cas_serve:serve",
    "backup": "sconify.cli.cas_store:backup",
    "restore": "sconify.cli.cas_store:restore",
    "rotate-master-key": "sconify.cli.cas_store:rotate_master_key",
    "provision": "sconify.cli.cas_provision:provision",
    "audit": "sconify.cli.cas_audit:audit",
    "verify-audit-log": "sconify.cli.cas_audit:verify_audit_log_",
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def cas() -> None:
    """Configuration and attestation service: keeps sessions, and gives them to services that prove what they are."""


@cas.command("list")
def list_known() -> None:
    """List the attested CASes; `*` marks the default."""
    config = ClientConfig.default()
    default = config.default_cas()
    for known in config.all_attested():
        mark = "*" if known.address == default else " "
        click.echo(f"{mark} {known.address.host}: https://{known.address}/")


@cas.command("set-default")
@click.argument("address")
def set_default(address: str) -> None:
    """Let commands use the CAS at ADDRESS when none is named."""
    ClientConfig.default().set_default(_known(address).address)


@cas.command("show-identification")
@click.option("-c", "key_hash_only", is_flag=True, help="Print the CAS key hash alone.")
@click.option("-C", "key_digest_only", is_flag=True, help="Print the SHA-256 of the CAS key alone, 64 hex digits.")
@click.option("-s", "measurement_only", is_flag=True, help="Print what the CAS runs alone, 64 hex digits.")
@click.argument("address", required=False)
def show_identification(
    address: str | None, key_hash_only: bool, key_digest_only: bool, measurement_only: bool
) -> None:
    """Show what is recorded about the attested CAS at ADDRESS, or about the default one."""
    known = _known(address)
    if key_hash_only:
        click.echo(known.key_hash)
    elif key_digest_only:
        click.echo(known.key_sha256.hex())
    elif measurement_only:
        click.echo(known.measurement)
    else:
        click.echo(f"CAS key hash: {known.key_hash}")
        click.echo(f"CAS key SHA-256: {known.key_sha256.hex()}")
        click.echo(f"Measurement: {known.measurement}")
        click.echo(f"Evidence: {known.evidence_kind}")
        click.echo(f"Mode: {known.mode}")
        click.echo(f"Attested at: {known.attested_at}")


@cas.command("show-certificate")
@click.argument("address", required=False)
def show_certificate(address: str | None) -> None:
    """Print the certificate of the attested CAS at ADDRESS, or of the default one, as PEM."""
    click.echo(_known(address).certificate.public_bytes(Encoding.PEM).decode(), nl=False)


@cas.command()
@click.argument("address", default="localhost")
def ready(address: str) -> None:
    """Tell whether the CAS at ADDRESS can serve, whoever it is; for health checks of containers.

    The exit code is 0 when it can, 4 when it can't.
    """
    connection = CasConnection(CasAddress.parse(address), identity=None, key_sha256=None, timeout=5, retries=0)
    connection.request("GET", "/v1/ready")


@cas.command()
def version() -> None:
    """Print the version of the CAS that this program runs."""
    click.echo(__version__)


@cas.command()
@click.argument("address")
def forget(address: str) -> None:
    """Forget the CAS at ADDRESS, so that it can be attested with another key."""
    where = CasAddress.parse(address)
    if not ClientConfig.default().forget(where):
        raise UserError(f"the CAS at {where} is not known", remedy="see `sconify cas list`")


def _known(address: str | None) -> AttestedCas:
    config = ClientConfig.default()
    where = CasAddress.parse(address) if address else config.default_cas()
    known = config.attested(where) if where else None
    if known is None:
        raise UserError(
            f"the CAS at {where} was not attested yet" if where else "no CAS was attested yet",
            remedy=f"run `sconify cas attest {where or 'HOST'}` first",
        )
    return known
