"""``sconify cas audit``: verify the audit log of a CAS, without the CAS."""

from __future__ import annotations

import datetime
from typing import BinaryIO

import click

from sconify.cas.audit_verification import verify_audit_log


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
    times = [
        datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for time in (log.first_time, log.last_time)
    ]
    click.echo(f"CAS key hash: {log.cas_key}")
    click.echo(f"Lines: {log.lines}, from {times[0]} to {times[1]}")
    click.echo(f"Head: {log.head}")
    if cas_key_hash is None:
        click.echo("warning: whose log it is was not checked; give -c HASH", err=True)
