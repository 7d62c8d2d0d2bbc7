"""``sconify cas``: attest CASes and see which ones are known; run one and look after it."""

from __future__ import annotations

import re

import click
from cryptography.hazmat.primitives.serialization import Encoding

from sconify import __version__
from sconify.cas.attest import attest_cas, parse_key
from sconify.cas.attested import AttestedCas, CasAddress
from sconify.cas.client_config import ClientConfig
from sconify.cli.lazy import LazyGroup
from sconify.errors import UserError

_LAZY = {
    "collateral": "sconify.cli.cas_collateral:collateral",
    "serve": "sconify.cli.cas_serve:serve",
    "backup": "sconify.cli.cas_store:backup",
    "restore": "sconify.cli.cas_store:restore",
    "rotate-master-key": "sconify.cli.cas_store:rotate_master_key",
    "provision": "sconify.cli.cas_provision:provision",
    "audit": "sconify.cli.cas_audit:audit",
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def cas() -> None:
    """Configuration and attestation service: keeps sessions, and gives them to services that prove what they are."""


@cas.command()
@click.argument("address")
@click.argument("measurement", required=False)
@click.option("-c", "--cas-key-hash", metavar="HASH", help="Accept this CAS key only, whatever was recorded before.")
@click.option("--mrenclave", "measurements", multiple=True, metavar="HEX", help="Accept this measurement; repeatable.")
@click.option("--only_for_testing-debug", "allow_debug", is_flag=True, help="Accept debug mode and simulated evidence.")
@click.option("--only_for_testing-ignore-signer", is_flag=True, help="Accept any signer; simulated evidence has none.")
@click.option("--only_for_testing-trust-any", is_flag=True, help="Accept any measurement, which is the default.")
@click.option("-C", "configuration_needed", is_flag=True, help="Accept CONFIGURATION_NEEDED of hardware evidence.")
@click.option("-G", "out_of_date", is_flag=True, help="Accept GROUP_OUT_OF_DATE of hardware evidence.")
@click.option("-S", "hardening_needed", is_flag=True, help="Accept SW_HARDENING_NEEDED of hardware evidence.")
@click.option("--retries", type=click.IntRange(min=0), help="How often a CAS that can't be reached is tried again.")
def attest(
    *,
    address: str,
    measurement: str | None,
    cas_key_hash: str | None,
    measurements: tuple[str, ...],
    allow_debug: bool,
    retries: int | None,
    **_hardware_only: bool,
) -> None:
    """Attest the CAS at ADDRESS (HOST[:PORT]), which must run MEASUREMENT if one is given, and record its key."""
    expected = (*measurements, *((measurement,) if measurement is not None else ()))
    for text in expected:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
            raise UserError(f"{text!r} is no measurement", remedy="give 64 hex digits")
    where = CasAddress.parse(address)
    attested = attest_cas(
        where,
        allow_debug=allow_debug,
        expected_key=None if cas_key_hash is None else parse_key(cas_key_hash),
        expected_measurements=expected,
        retries=retries,
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
