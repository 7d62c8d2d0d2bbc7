"""``sconify cas collateral``: what evidence of hardware is verified against, for a CAS that fetches nothing."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import click

from sconify.attestation.authorities import Authorities, parse_test_roots
from sconify.attestation.quote import Quote
from sconify.cas.collateral import Collateral, Item
from sconify.cas.collateral_fetch import AMD_KDS, INTEL_PCS, HttpFetcher
from sconify.cas.collateral_files import MAX_FILE, dump_bundle, import_file
from sconify.cas.collateral_memory import MemoryDocuments
from sconify.cas.master_key import FileMasterKey
from sconify.cas.service import MASTER_KEY_FILE
from sconify.cas.store import Store
from sconify.cli.cas_store import DEFAULT_STATE_DIR
from sconify.cli.errors import warn
from sconify.cli.evidence_file import read_evidence
from sconify.errors import ServiceError, UntrustedDataError, UserError

_Command = TypeVar("_Command", bound=Callable[..., object])


@click.group()
def collateral() -> None:
    """What hardware evidence is verified against: Intel's collateral, AMD's certificates and revocation lists."""


def _store_options(command: _Command) -> _Command:
    command = click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=DEFAULT_STATE_DIR,
        help="Where the CAS keeps its store.  [default: ~/.local/share/sconify/server]",
    )(command)
    return click.option(
        "--master-key-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Key of the store.  [default: master.key in the state directory]",
    )(command)


@collateral.command("import")
@_store_options
@click.option(
    "--test-root",
    "test_root_files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="PEM file with roots that are trusted besides; for a CAS in debug mode only.",
)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def import_files(
    files: tuple[Path, ...], state_dir: Path, master_key_file: Path | None, test_root_files: tuple[Path, ...]
) -> None:
    """Take in FILES: bundles, or what Intel's and AMD's services give.

    Each document is verified up to the manufacturer's root, and none is taken that is older than what is there.
    The CAS may run meanwhile.
    """
    roots = [root for file in test_root_files for root in parse_test_roots(file.read_bytes(), name=str(file))]
    with _opened(state_dir, master_key_file) as store:
        if roots and store.fixed("mode", new=b"debug") != b"debug":
            raise UserError("test roots are not for a CAS in production mode", remedy="leave --test-root out")
        kept = Collateral(store, test_roots=roots)
        for file in files:
            with file.open("rb") as opened:
                data = opened.read(MAX_FILE + 1)
            for name in import_file(kept, data, name=str(file)):
                click.echo(f"imported {name}")


@collateral.command()
@_store_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(state_dir: Path, master_key_file: Path | None, as_json: bool) -> None:
    """Show what the CAS has, and until when it is valid."""
    with _opened(state_dir, master_key_file) as store:
        items = Collateral(store).items()
    if as_json:
        click.echo(json.dumps([_document(item) for item in items], indent=2))
        return
    if not items:
        click.echo("no collateral is kept", err=True)
    for item in items:
        click.echo(_line(item))


@collateral.command()
@_store_options
def export(state_dir: Path, master_key_file: Path | None) -> None:
    """Print all that the CAS has as a bundle, for another CAS to import."""
    with _opened(state_dir, master_key_file) as store:
        click.echo(dump_bundle(Collateral(store).export()))


@collateral.command()
@click.option("--pcs", metavar="URL", default=INTEL_PCS, show_default=True, help="Intel's PCS or a PCCS.")
@click.option("--kds", metavar="URL", default=AMD_KDS, show_default=True, help="AMD's KDS or a mirror.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def fetch(file: Path, pcs: str, kds: str) -> None:
    """Fetch what the platform of a quote or report in FILE is verified against; print a bundle.

    Run it where there is a network, and import the bundle where there is none.
    """
    evidence = read_evidence(file)
    logging.getLogger("sconify.cas").setLevel(logging.CRITICAL)  # what fails is told once, by the error below
    documents = MemoryDocuments()
    authorities = Authorities(Collateral(documents, fetcher=HttpFetcher(pcs=pcs, kds=kds)))
    now = int(time.time())
    try:
        if isinstance(evidence.platform, Quote):
            authorities.verify_quote(evidence.platform, at=now)
        else:
            authorities.verify_report(evidence.platform, certificate=evidence.certificate, at=now)
    except UntrustedDataError as error:
        # What was fetched is verified by itself, whatever the evidence is worth; but it must have been fetched.
        if not documents.documents():
            raise
        warn(error.diagnostics())
    except ServiceError as error:
        raise ServiceError(error.what, remedy="give --pcs=URL or --kds=URL of a service that can be reached") from None
    click.echo(dump_bundle(Collateral(documents).export()))


@contextmanager
def _opened(state_dir: Path, master_key_file: Path | None) -> Iterator[Store]:
    if not state_dir.is_dir():
        raise UserError(f"there is no CAS in {state_dir}", remedy="give --state-dir=DIR, or start the CAS once")
    store = Store(state_dir, master_key=FileMasterKey(master_key_file or state_dir / MASTER_KEY_FILE))
    try:
        yield store
    finally:
        store.close()


def _document(item: Item) -> dict[str, object]:
    return {
        "name": item.name,
        "valid_until": None if item.valid_until is None else item.valid_until.isoformat(),
        "tcb_evaluation_data_number": item.evaluation_data_number,
        "crl_number": item.number,
    }


def _line(item: Item) -> str:
    parts = [item.name]
    if item.valid_until is not None:
        ended = item.valid_until <= datetime.now(UTC)
        parts.append(f"{'EXPIRED' if ended else 'valid until'} {item.valid_until:%Y-%m-%d %H:%M:%SZ}")
    if item.evaluation_data_number is not None:
        parts.append(f"TCB evaluation {item.evaluation_data_number}")
    if item.number is not None:
        parts.append(f"CRL number {item.number}")
    return "  ".join(parts)
