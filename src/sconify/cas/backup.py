"""Online backup of a store to one file, and restoring it, also into a database of another kind.

A backup is an SQLite database with the rows of one moment. Everything secret in it is encrypted as in the store, so it
opens with the store's master key only, which is not in it. Used nonces and leases are left out: they are over within a
minute.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from sconify.cas.database import Database, reported
from sconify.cas.tables import counters, keys, metadata, session_versions, volume_states
from sconify.errors import ServiceError, UserError

_TABLES = (keys, session_versions, volume_states, counters)
_FORMAT = "sconify-cas-backup/1"
_BATCH = 500
_about = sa.Table("about", sa.MetaData(), sa.Column("format", sa.Text, primary_key=True))


@dataclass(frozen=True)
class BackupContent:
    """What a backup holds.

    Attributes:
        versions: How many versions of sessions.
        volumes: How many states of volumes.
    """

    versions: int
    volumes: int


def write_backup(database: Database, file: Path) -> BackupContent:
    """Write the rows of a database, as they are at one moment, to a new file; the CAS may serve meanwhile.

    Raises:
        UserError: The file exists.
        ServiceError: The database or the file can't be used.
    """
    if file.exists():
        raise UserError(f"{file} exists", remedy="name a new file")
    with (
        reported(f"the backup {file}"),
        tempfile.TemporaryDirectory(dir=file.absolute().parent, prefix=".backup-") as work,
    ):
        draft = Path(work) / "backup"
        draft.touch(0o600)
        target = sa.create_engine(f"sqlite:///{draft}")
        metadata.create_all(target, tables=_TABLES)
        _about.create(target)
        level = "REPEATABLE READ" if database.sqlite_file is None else "SERIALIZABLE"
        with database.durable.connect().execution_options(isolation_level=level) as source, target.begin() as into:
            into.execute(_about.insert().values(format=_FORMAT))
            for table in _TABLES:
                _copy(table, source, into)
            content = _content(into)
        target.dispose()
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, file)
        except FileExistsError:
            raise UserError(f"{file} exists", remedy="name a new file") from None
    return content


def restore_backup(file: Path, database: Database) -> BackupContent:
    """Put the rows of a backup into a database that has none: all of them or none.

    Raises:
        UserError: The file is no backup, or the database holds something.
        ServiceError: The database or the file can't be used.
    """
    if not file.is_file():
        raise UserError(f"{file} is no file", remedy="name a backup that `sconify cas backup` has written")
    source = sa.create_engine(f"sqlite:///file:{file.absolute()}?mode=ro&uri=true")
    with contextlib.closing(_Disposed(source)), database.prepared():
        pass
    with contextlib.closing(_Disposed(source)), source.connect() as rows:
        try:
            formats = list(rows.execute(sa.select(_about.c.format)).scalars())
        except sa.exc.SQLAlchemyError:
            formats = []
        if formats != [_FORMAT]:
            raise UserError(f"{file} is no backup of a CAS, or of a later version of this program")
        with reported("the store"), database.durable.begin() as into:
            if any(into.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in _TABLES):
                raise UserError(
                    "the database holds something already, and a backup replaces nothing",
                    remedy="give an empty one: another --state-dir or another --database",
                )
            for table in _TABLES:
                _copy(table, rows, into)
            content = _content(into)
            if not into.execute(sa.select(keys.c.name).where(keys.c.name == "root")).first():
                raise ServiceError(f"the backup {file} has no root key: it is damaged")
    return content


class _Disposed:
    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def close(self) -> None:
        self._engine.dispose()


def _copy(table: sa.Table, source: sa.Connection, into: sa.Connection) -> None:
    result = source.execution_options(yield_per=_BATCH).execute(sa.select(table))
    for rows in result.mappings().partitions(_BATCH):
        into.execute(table.insert(), [dict(row) for row in rows])


def _content(connection: sa.Connection) -> BackupContent:
    def count(table: sa.Table) -> int:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())

    return BackupContent(count(session_versions), count(volume_states))
