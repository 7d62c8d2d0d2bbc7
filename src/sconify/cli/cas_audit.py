"""``sconify cas audit``: verify the audit log of a CAS, without the CAS."""

from __future__ import annotations

import datetime
import json
from typing import BinaryIO

import click

from sconify.cas.attested import CasAddress
from sconify.cas.audit_verification import AuditLogError, Finding, verify_audit_log
from sconify.cas.client_config import ClientConfig
from sconify.cli.errors import warn
from sconify.errors import UserError

_SHOWN_OR_LONG = ("seq", "time", "event", "previous", "signature", "cas_spki", "cas_signature")


@click.group()
def audit() -> None:
    """The audit log of a CAS (audit.jsonl in its state directory)."""


@audit.command()
@click.option("-c", "--cas-key-hash", metavar="HASH", help="The log must be that of the CAS with this key.")
@click.option("--head", metavar="HASH", help="The log must have the line with this hash, as an earlier run showed it.")
@click.argument("file", type=click.File("rb"))
def verify(file: BinaryIO, cas_key_hash: str | None, head: str | None) -> None:
    """Verify every line of the audit log FILE; print what it was found to be.

    The exit code is 0 when it is whole, 3 when a line was changed, left out, put in or moved.
    """
    log = verify_audit_log(file, cas_key=cas_key_hash, head=head)
    click.echo(f"CAS key hash: {log.cas_key}")
    click.echo(f"Lines: {log.lines}, from {_time(log.first_time)} to {_time(log.last_time)}")
    click.echo(f"Head: {log.head}")
    if cas_key_hash is None:
        warn("whose log it is was not checked; give -c HASH")


@click.command("verify-audit-log")
@click.option(
    "--cas", metavar="HOST[:PORT]", help="CAS whose log it must be, attested before.  [default: the first one]"
)
@click.option("-c", "--cas-key-hash", metavar="HASH", help="The key of that CAS, in place of --cas.")
@click.option("--last", "head", metavar="HASH", help="The log must have the line with this hash.")
@click.option("-p", "print_events", is_flag=True, help="Print each event.")
@click.argument("file", type=click.File("rb"))
def verify_audit_log_(
    *, file: BinaryIO, cas: str | None, cas_key_hash: str | None, head: str | None, print_events: bool
) -> None:
    """Verify the audit log FILE, with the exit codes of `scone cas verify-audit-log`.

    0: whole; 14: lines are missing at its end; 15: at its beginning; 16: whole, but whether lines are missing at its
    end can't be told without --last; 17: lines are missing between, or moved; 19: it is another CAS's; 20: it was
    changed. The CAS is not asked.
    """
    if cas_key_hash is None:
        config = ClientConfig.default()
        address = CasAddress.parse(cas) if cas else config.default_cas()
        known = config.attested(address) if address else None
        if known is None:
            raise UserError("whose log it must be is not known", remedy="give -c HASH, or `sconify cas attest` first")
        cas_key_hash = known.key_hash
    try:
        lines = list(file)
        log = verify_audit_log(lines, cas_key=cas_key_hash, head=head)
    except AuditLogError as error:
        click.echo(f"Error: {error.what}", err=True)
        click.get_current_context().exit(error.finding)
    for line in lines if print_events else ():
        event = json.loads(line)
        details = " ".join(f"{name}={json.dumps(event[name])}" for name in sorted(event) if name not in _SHOWN_OR_LONG)
        click.echo(f"{event['seq']} {_time(event['time'])} {event['event']} {details}".rstrip())
    click.echo(f"The audit log is that of the CAS {log.cas_key}, and whole: {log.lines} lines, last {log.head}")
    if head is None:
        click.echo("Whether lines are missing at its end is not known: give --last=HASH", err=True)
        click.get_current_context().exit(Finding.END_NOT_KNOWN)


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
