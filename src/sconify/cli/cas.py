"""``sconify cas``: attest CASes and see which ones are known; run one."""

from __future__ import annotations

import re

import click

from sconify.cas.attest import attest_cas, parse_key
from sconify.cas.attested import CasAddress
from sconify.cas.client_config import ClientConfig
from sconify.cli.lazy import LazyGroup
from sconify.errors import UserError


@click.group(
    cls=LazyGroup, lazy={"collateral": "sconify.cli.cas_collateral:collateral", "serve": "sconify.cli.cas_serve:serve"}
)
def cas() -> None:
    """Configuration and attestation service: keeps sessions, and gives them to services that prove what they are."""


@cas.command()
@click.argument("address")
@click.argument("measurement", required=False)
@click.option("-c", "--cas-key-hash", metavar="HASH", help="Accept this CAS key only, whatever was recorded before.")
@click.option("--only_for_testing-debug", "allow_debug", is_flag=True, help="Accept debug mode and simulated evidence.")
def attest(address: str, measurement: str | None, cas_key_hash: str | None, allow_debug: bool) -> None:
    """Attest the CAS at ADDRESS (HOST[:PORT]), which must run MEASUREMENT if one is given, and record its key."""
    if measurement is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", measurement):
        raise UserError(f"{measurement!r} is no measurement", remedy="give 64 hex digits")
    where = CasAddress.parse(address)
    attested = attest_cas(
        where,
        allow_debug=allow_debug,
        expected_key=None if cas_key_hash is None else parse_key(cas_key_hash),
        expected_measurement=measurement,
    )
    ClientConfig.default().record(attested, replace=cas_key_hash is not None)
    click.echo(f"CAS {where.host} at https://{where}/ is trustworthy")
    click.echo(f"It runs {attested.measurement} ({attested.evidence_kind} evidence, {attested.mode} mode)")
    click.echo(f"CAS key hash: {attested.key_hash}")


@cas.command("list")
def list_known() -> None:
    """List the attested CASes; `*` marks the default."""
    config = ClientConfig.default()
    default = config.default_cas()
    for known in config.all_attested():
        mark = "*" if known.address == default else " "
        click.echo(f"{mark} {known.address.host}: https://{known.address}/")


@cas.command("show-identification")
@click.option("-c", "key_hash_only", is_flag=True, help="Print the CAS key hash alone.")
@click.argument("address", required=False)
def show_identification(address: str | None, key_hash_only: bool) -> None:
    """Show what is recorded about the attested CAS at ADDRESS, or about the default one."""
    config = ClientConfig.default()
    where = CasAddress.parse(address) if address else config.default_cas()
    known = config.attested(where) if where else None
    if known is None:
        raise UserError(
            f"the CAS at {where} was not attested yet" if where else "no CAS was attested yet",
            remedy=f"run `sconify cas attest {where or 'HOST'}` first",
        )
    if key_hash_only:
        click.echo(known.key_hash)
        return
    click.echo(f"CAS key hash: {known.key_hash}")
    click.echo(f"CAS key SHA-256: {known.key_sha256.hex()}")
    click.echo(f"Measurement: {known.measurement}")
    click.echo(f"Evidence: {known.evidence_kind}")
    click.echo(f"Mode: {known.mode}")
    click.echo(f"Attested at: {known.attested_at}")


@cas.command()
@click.argument("address")
def forget(address: str) -> None:
    """Forget the CAS at ADDRESS, so that it can be attested with another key."""
    where = CasAddress.parse(address)
    if not ClientConfig.default().forget(where):
        raise UserError(f"the CAS at {where} is not known", remedy="see `sconify cas list`")
