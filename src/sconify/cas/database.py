"""The database under the store: SQLite in the state directory, or a PostgreSQL that several replicas share."""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from sconify.errors import ServiceError, UserError

SQLITE_FILE = "cas.sqlite"
_BUSY_SECONDS = 20
_CONNECTIONS = 16
_LOCK_ID = 0x5C0F1F7  # any number that no other user of the database takes


class Database:
    """Two pools of connections: transactions that survive a power cut, and statements that need not.

    Args:
        directory: The state directory; made with mode 0700 if it does not exist.
        url: ``postgresql://...``; None: SQLite in the state directory.

    Raises:
        UserError: The URL is none, or the tables are of a later version.
        ServiceError: The directory or database can't be used.
    """

    def __init__(self, directory: Path, *, url: str | None = None) -> None:
        self._directory = directory
        with reported(f"the state directory {directory}"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.sqlite_file = directory / SQLITE_FILE if url is None else None
        if self.sqlite_file is not None:
            self.durable = _sqlite(self.sqlite_file, synchronous="FULL")
            fast = _sqlite(self.sqlite_file, synchronous="NORMAL")
        else:
            self.durable = _postgresql(url or "", options="")
            fast = _postgresql(url or "", options="-c synchronous_commit=off")
        # SQLite lets one write at a time, and who waits for it in vain sleeps: better to queue here.
        self._writing: AbstractContextManager[object] = nullcontext() if self.sqlite_file is None else threading.Lock()
        # For reads, and for nonces: a power cut may lose the last ones, which binds nobody to anything.
        self.fast = fast.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def prepared(self) -> Iterator[bool]:
        """Hold the lock that lets one process at a time make keys and tables; then make the tables.

        Yields:
            Whether nothing was ever stored before.
        """
        with reported("the store"), _locked(self._directory / "lock"), self.durable.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            new = not sa.inspect(connection).has_table("keys")
            self._migrate(connection)
            yield new

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """Give a connection for a transaction that survives a power cut, once the block has ended without an error."""
        with self._writing, reported("the store"), self.durable.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self.durable.dispose()
        self.fast.dispose()

    @staticmethod
    def _migrate(connection: sa.Connection) -> None:
        config = Config()
        with resources.as_file(resources.files("sconify.cas").joinpath("migrations")) as location:
            config.set_main_option("script_location", str(location))
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError:
                raise UserError(
                    "the store was written by a later version of this program", remedy="install that version"
                ) from None


def _sqlite(database: Path, *, synchronous: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{database}", connect_args={"timeout": _BUSY_SECONDS}, pool_size=32)

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy's "begin" below is the only one
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that begins as a writer can't fail halfway because another one wrote in between.
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str, *, options: str) -> sa.Engine:
    if not re.match(r"postgres(ql)?://", url):
        raise UserError("the database is no postgresql://...", remedy="give --database=postgresql://USER@HOST/NAME")
    try:
        # The password comes from PGPASSFILE or PGPASSWORD, as with every client of PostgreSQL.
        return sa.create_engine(
            "postgresql+psycopg://" + url.partition("://")[2],
            connect_args={"options": options, "connect_timeout": _BUSY_SECONDS},
            pool_size=_CONNECTIONS,
            max_overflow=_CONNECTIONS,
            pool_pre_ping=True,
        )
    except SQLAlchemyError:
        raise UserError("the database's URL is malformed", remedy="give postgresql://USER@HOST:PORT/NAME") from None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def reported(what: str) -> Iterator[None]:
    """Turn failures of disk and database into errors that name them; statements and their values are not shown."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None)
        raise ServiceError(f"{what} failed: {cause if cause is not None else type(error).__name__}") from None
    except OSError as error:
        raise ServiceError(f"{what} can't be used: {error.strerror}", remedy="give another --state-dir") from None
