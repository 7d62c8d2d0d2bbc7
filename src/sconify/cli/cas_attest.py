"""``sconify cas attest``: make sure what a CAS is before anything is entrusted to it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import click

from sconify.attestation.authorities import Authorities, parse_test_roots
from sconify.cas.attest import attest_cas, parse_key
from sconify.cas.attested import CasAddress
from sconify.cas.client_config import ClientConfig
from sconify.cas.collateral import Collateral
from sconify.cas.collateral_fetch import AMD_KDS, INTEL_PCS, HttpFetcher
from sconify.cas.collateral_files import MAX_FILE, import_file
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.cas.demands import PlatformDemands
from sconify.cli.policy_file import read_policy
from sconify.errors import UserError
from sconify.policy.security import Security

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.argument("address")
@click.argument("measurement", required=False)
@click.option("-c", "--cas-key-hash", metavar="HASH", help="Accept this CAS key only, whatever was recorded before.")
@click.option("--mrenclave", "measurements", multiple=True, metavar="HEX", help="Accept this measurement; repeatable.")
@click.option(
    "--policy",
    type=_FILE,
    metavar="FILE",
    help="Session whose tdx or snp section names the VMs that may run the CAS, and whose security section judges them.",
)
@click.option("--service", metavar="NAME", help="Service of that session whose factors count.  [default: the first]")
@click.option("--collateral", "collateral_files", multiple=True, type=_FILE, metavar="FILE",
              help="Collateral of its hardware, as for `sconify attest verify`; repeatable.")  # fmt: skip
@click.option("--pcs", metavar="URL", default=INTEL_PCS, show_default=True, help="Intel's PCS or a PCCS.")
@click.option("--kds", metavar="URL", default=AMD_KDS, show_default=True, help="AMD's KDS or a mirror.")
@click.option("--no-fetch", is_flag=True, help="Fetch no collateral: use what --collateral gives.")
@click.option("--test-root", "test_root_files", multiple=True, type=_FILE, metavar="FILE",
              help="Root to trust besides; for tests, with --only_for_testing-debug only.")  # fmt: skip
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
    policy: Path | None,
    service: str | None,
    collateral_files: tuple[Path, ...],
    pcs: str,
    kds: str,
    no_fetch: bool,
    test_root_files: tuple[Path, ...],
    allow_debug: bool,
    configuration_needed: bool,
    out_of_date: bool,
    hardening_needed: bool,
    retries: int | None,
    **_without_effect: bool,
) -> None:
    """Attest the CAS at ADDRESS (HOST[:PORT]), which must run MEASUREMENT if one is given, and record its key.

    A CAS in a confidential VM shows evidence of its hardware: --policy says which VMs may run it.
    """
    expected = (*measurements, *((measurement,) if measurement is not None else ()))
    for text in expected:
        if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
            raise UserError(f"{text!r} is no measurement", remedy="give 64 hex digits")
    where = CasAddress.parse(address)
    security, factors = read_policy(policy, service)
    weaknesses = {
        "insecure-configuration": configuration_needed,
        "outdated-tcb": out_of_date,
        "software-hardening-needed": hardening_needed,
    }
    demands = PlatformDemands(
        authorities=_authorities(collateral_files, test_root_files, fetcher=None if no_fetch else (pcs, kds)),
        security=_tolerating(security, [name for name, accepted in weaknesses.items() if accepted]),
        factors=factors,
    )
    attested = attest_cas(
        where,
        allow_debug=allow_debug,
        expected_key=None if cas_key_hash is None else parse_key(cas_key_hash),
        expected_measurements=expected,
        demands=demands,
        retries=retries,
    )
    ClientConfig.default().record(attested, replace=cas_key_hash is not None)
    click.echo(f"CAS {where.host} at https://{where}/ is trustworthy")
    click.echo(f"It runs {attested.measurement} ({attested.evidence_kind} evidence, {attested.mode} mode)")
    click.echo(f"CAS key hash: {attested.key_hash}")


def _authorities(
    files: tuple[Path, ...], root_files: tuple[Path, ...], *, fetcher: tuple[str, str] | None
) -> Authorities:
    roots = [root for file in root_files for root in parse_test_roots(file.read_bytes(), name=str(file))]
    fetch = None if fetcher is None else HttpFetcher(pcs=fetcher[0], kds=fetcher[1])
    collateral = Collateral(MemoryDocuments(), fetcher=fetch, test_roots=roots)
    for file in files:
        with file.open("rb") as opened:
            import_file(collateral, opened.read(MAX_FILE + 1), name=str(file))
    return Authorities(collateral, test_roots=roots)


def _tolerating(security: Security, weaknesses: list[str]) -> Security:
    """Return a security section that puts up with more."""
    if not weaknesses:
        return security
    attestation = security.attestation
    update = {
        "tolerate": tuple(dict.fromkeys((*attestation.tolerate, *weaknesses))),
        "ignore_advisories": ("*",),
        "outdated_tcb_until": attestation.outdated_tcb_until or datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return security.model_copy(update={"attestation": attestation.model_copy(update=update)})
