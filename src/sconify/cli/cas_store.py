"""``sconify cas backup``, ``restore`` and ``rotate-master-key``: look after the store of a CAS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from sconify.cas.backup import restore_backup, write_backup
from sconify.cas.database import Database
from sconify.cas.key_providers import KmsMasterKey, PassphraseMasterKey
from sconify.cas.master_key import FileMasterKey, MasterKeyProvider
from sconify.cas.service import MASTER_KEY_FILE
from sconify.cas.store import Store
from sconify.errors import UserError

DEFAULT_STATE_DIR = Path("~/.local/share/sconify/server").expanduser()
_Command = TypeVar("_Command", bound=Callable[..., object])
_FILE = click.Path(dir_okay=False, path_type=Path)


def store_options(command: _Command) -> _Command:
    """Add the options that say where a store is."""
    for option in (
        click.option(
            "--state-dir",
            type=click.Path(file_okay=False, path_type=Path),
            default=DEFAULT_STATE_DIR,
            help="Where the CAS keeps its store and audit log.  [default: ~/.local/share/sconify/server]",
        ),
        click.option(
            "--database",
            "database_url",
            envvar="SCONIFY_CAS_DATABASE",
            metavar="URL",
            help="PostgreSQL that several replicas share, as postgresql://USER@HOST:PORT/NAME; its password comes from "
            "PGPASSFILE or PGPASSWORD.  [default: SQLite in the state directory]",
        ),
    ):
        command = option(command)
    return command


def master_key_options(command: _Command) -> _Command:
    """Add the options that say where the master key is from."""
    for option in (
        click.option(
            "--master-key-file",
            type=_FILE,
            help="Key that encrypts the store; made at first start.  [default: master.key in the state directory]",
        ),
        click.option(
            "--master-key-passphrase-file",
            "passphrase_file",
            type=_FILE,
            help="File with a passphrase that the master key is made of (with master.salt in the state directory).",
        ),
        click.option(
            "--master-key-url",
            "kms_url",
            metavar="URL",
            help="Key management service of the master key (with master.wrapped in the state directory).",
        ),
    ):
        command = option(command)
    return command


def master_key_provider(
    state_dir: Path, *, file: Path | None, passphrase_file: Path | None, kms_url: str | None
) -> MasterKeyProvider:
    """Return where the master key is from.

    Raises:
        UserError: More than one place is given.
    """
    if sum(place is not None for place in (file, passphrase_file, kms_url)) > 1:
        raise UserError(
            "--master-key-file, --master-key-passphrase-file and --master-key-url exclude each other",
            remedy="give one of them",
        )
    if passphrase_file is not None:
        return PassphraseMasterKey(passphrase_file, salt=state_dir / "master.salt")
    if kms_url is not None:
        return KmsMasterKey(kms_url, wrapped=state_dir / "master.wrapped")
    return FileMasterKey(file or state_dir / MASTER_KEY_FILE)


@click.command()
@store_options
@click.argument("file", type=_FILE)
def backup(file: Path, state_dir: Path, database_url: str | None) -> None:
    """Write what a CAS has stored to the new FILE; the CAS may serve meanwhile.

    What is secret stays encrypted: keep the master key as well, and keep it elsewhere.
    """
    if database_url is None and not (state_dir / "cas.sqlite").exists():
        raise UserError(f"there is no store in {state_dir}", remedy="give --state-dir or --database")
    database = Database(state_dir, url=database_url)
    try:
        content = write_backup(database, file)
    finally:
        database.close()
    click.echo(f"{content.versions} versions of sessions, {content.volumes} states of volumes in {file}")


@click.command()
@store_options
@click.argument("file", type=_FILE)
def restore(file: Path, state_dir: Path, database_url: str | None) -> None:
    """Put the backup FILE into an empty store. Start the CAS with the master key of the store that was backed up."""
    database = Database(state_dir, url=database_url)
    try:
        content = restore_backup(file, database)
    finally:
        database.close()
    click.echo(f"{content.versions} versions of sessions, {content.volumes} states of volumes restored")


@click.command("rotate-master-key")
@store_options
@master_key_options
@click.option("--new-master-key-file", required=True, type=_FILE, help="File of the new key; made if there is none.")
def rotate_master_key(
    *,
    state_dir: Path,
    database_url: str | None,
    master_key_file: Path | None,
    passphrase_file: Path | None,
    kms_url: str | None,
    new_master_key_file: Path,
) -> None:
    """Encrypt a store under a new master key; the old one opens nothing from then on.

    CASes that run go on; they need the new key when they start again.
    """
    provider = master_key_provider(state_dir, file=master_key_file, passphrase_file=passphrase_file, kms_url=kms_url)
    new = FileMasterKey(new_master_key_file).master_key(create=True)
    store = Store(state_dir, master_key=provider, database_url=database_url)
    try:
        store.rotate_master_key(provider.master_key(create=False), new)
    finally:
        store.close()
    click.echo(f"the store needs {new_master_key_file} from now on")
