"""The store of the CAS: append-only session versions, the CAS key, used nonces; everything secret encrypted.

SQLite in WAL mode; several processes may share one store. A version is one row, so it is there whole or not at all.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from sconify.cas.errors import ConflictError
from sconify.cas.master_key import MasterKeyProvider
from sconify.cas.sealing import Authenticator, Sealer
from sconify.cas.tables import collateral, keys, session_versions, used_nonces
from sconify.errors import ServiceError, UntrustedDataError, UserError
from sconify.policy.substitution import SecretValue

_DATABASE = "cas.sqlite"
_BUSY_SECONDS = 20

# Built once: they run at each attestation.
_LATEST_VERSION = sa.select(sa.func.max(session_versions.c.version)).where(
    session_versions.c.name == sa.bindparam("name")
)
_USE_NONCE = used_nonces.insert()


@dataclass(frozen=True, kw_only=True)
class StoredSession:
    """One version of a session.

    Attributes:
        name: The session's name.
        version: 1 for the first.
        creator: The key hash of who created the session.
        text: Its YAML, with the creator in it.
        secrets: The values of its secrets by name.
    """

    name: str
    version: int
    creator: str
    text: str = field(repr=False)
    secrets: Mapping[str, SecretValue] = field(repr=False)


class Store:
    """Opens or creates the store in a directory.

    Args:
        directory: The state directory; made with mode 0700 if it does not exist.
        master_key: Gives the key under which everything secret is encrypted.

    Raises:
        UserError: The master key is missing or is another store's.
        ServiceError: The directory or database can't be used.
    """

    def __init__(self, directory: Path, *, master_key: MasterKeyProvider) -> None:
        with _reported(f"the state directory {directory}"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            # One process at a time makes keys and tables.
            with _locked(directory / "lock"):
                database = directory / _DATABASE
                key = master_key.master_key(create=not database.exists())
                self._durable = _engine(database, synchronous="FULL")
                # For reads, and for nonces: a power cut may lose the last ones, which binds nobody to anything.
                self._fast = _engine(database, synchronous="NORMAL").execution_options(isolation_level="AUTOCOMMIT")
                self._migrate()
        self.master_key = key
        self._sealer = Sealer(key, purpose="store")
        self._hashes = Authenticator(key, purpose="session hash")

    def close(self) -> None:
        """Close all connections."""
        self._durable.dispose()
        self._fast.dispose()

    def fixed(self, name: str, *, new: bytes) -> bytes:
        """Return what the store was given under a name at first; that is ``new`` if there is nothing yet.

        Raises:
            UserError: It was sealed under another master key.
        """
        place = ("keys", name, "key")
        with _reported("the store"), self._durable.begin() as connection:
            row = connection.execute(sa.select(keys.c.sealed_key).where(keys.c.name == name)).first()
            if row is None:
                connection.execute(keys.insert().values(name=name, sealed_key=self._sealer.seal(new, place=place)))
                return new
        try:
            return self._sealer.open(row.sealed_key, place=place)
        except UntrustedDataError:
            raise UserError(
                "the store was written under another master key",
                remedy="give the right one with --master-key-file=FILE",
            ) from None

    def append(self, session: StoredSession, *, session_hash: str) -> None:
        """Add a version: atomic, also between processes.

        Raises:
            ConflictError: The version exists already, because somebody else was first, or the hash does.
        """
        place = ("session_versions", session.name, str(session.version), session.creator)
        values = {
            "name": session.name,
            "version": session.version,
            "hash_digest": self._hash_digest(session.name, session_hash),
            "creator": session.creator,
            "created_at": sa.text("unixepoch()"),
            "sealed_text": self._sealer.seal(session.text.encode(), place=(*place, "text")),
            "sealed_secrets": self._sealer.seal(_dump_secrets(session.secrets), place=(*place, "secrets")),
        }
        try:
            with _reported("the store"), self._durable.begin() as connection:
                connection.execute(session_versions.insert().values(**values))
        except IntegrityError:
            raise ConflictError(f"session {session.name} was changed by somebody else at the same time") from None

    def latest_version(self, name: str) -> int:
        """Return the number of the latest version of a session, 0 if there is none."""
        with _reported("the store"), self._fast.connect() as connection:
            return connection.execute(_LATEST_VERSION, {"name": name}).scalar_one() or 0

    def load(self, name: str, version: int) -> StoredSession | None:
        """Return a version of a session, or None."""
        return self._load(name, session_versions.c.version == version)

    def load_by_hash(self, name: str, session_hash: str) -> StoredSession | None:
        """Return the version of a session that has this hash, or None."""
        return self._load(name, session_versions.c.hash_digest == self._hash_digest(name, session_hash))

    def use_nonce(self, nonce: bytes, *, expires_at: int) -> bool:
        """Mark a nonce as used; False if it was used before, by whichever process."""
        try:
            with _reported("the store"), self._fast.connect() as connection:
                connection.execute(_USE_NONCE, {"nonce": nonce, "expires_at": expires_at})
        except IntegrityError:
            return False
        return True

    def forget_nonces(self, *, expired_before: int) -> None:
        """Drop used nonces that are too old to be accepted anyway (seconds since 1970)."""
        with _reported("the store"), self._fast.connect() as connection:
            connection.execute(used_nonces.delete().where(used_nonces.c.expires_at < expired_before))

    def document(self, name: str) -> bytes | None:
        """Return a document of collateral, or None."""
        found = self._document(name)
        return None if found is None else found[1]

    def documents(self) -> list[str]:
        """Return the names of all documents of collateral."""
        with _reported("the store"), self._fast.connect() as connection:
            return list(connection.execute(sa.select(collateral.c.name)).scalars())

    def replace_document(self, name: str, *, old: bytes | None, new: bytes) -> bool:
        """Keep a document of collateral if what is kept is ``old``; False if it is something else by now."""
        found = self._document(name)
        version, content = found if found is not None else (0, None)
        if content != old:
            return False
        sealed = self._sealer.seal(new, place=("collateral", name, str(version + 1)))
        values = {"version": version + 1, "sealed_content": sealed}
        try:
            with _reported("the store"), self._durable.begin() as connection:
                if found is None:
                    connection.execute(collateral.insert().values(name=name, **values))
                    return True
                update = collateral.update().where(collateral.c.name == name, collateral.c.version == version)
                return bool(connection.execute(update.values(**values)).rowcount)
        except IntegrityError:
            return False

    def _document(self, name: str) -> tuple[int, bytes] | None:
        query = sa.select(collateral.c.version, collateral.c.sealed_content).where(collateral.c.name == name)
        with _reported("the store"), self._fast.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        return row.version, self._sealer.open(row.sealed_content, place=("collateral", name, str(row.version)))

    def _load(self, name: str, condition: sa.ColumnElement[bool]) -> StoredSession | None:
        query = sa.select(session_versions).where(session_versions.c.name == name, condition)
        with _reported("the store"), self._fast.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        place = ("session_versions", row.name, str(row.version), row.creator)
        return StoredSession(
            name=row.name,
            version=row.version,
            creator=row.creator,
            text=self._sealer.open(row.sealed_text, place=(*place, "text")).decode(),
            secrets=_load_secrets(self._sealer.open(row.sealed_secrets, place=(*place, "secrets"))),
        )

    def _hash_digest(self, name: str, session_hash: str) -> bytes:
        return self._hashes.digest(f"{name}\0{session_hash}".encode())

    def _migrate(self) -> None:
        config = Config()
        with resources.as_file(resources.files("sconify.cas").joinpath("migrations")) as location:
            config.set_main_option("script_location", str(location))
            with self._durable.begin() as connection:
                config.attributes["connection"] = connection
                try:
                    command.upgrade(config, "head")
                except CommandError:
                    raise UserError(
                        "the store was written by a later version of this program", remedy="install that version"
                    ) from None


def _engine(database: Path, *, synchronous: str) -> sa.Engine:
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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _reported(what: str) -> Iterator[None]:
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


def _dump_secrets(secrets: Mapping[str, SecretValue]) -> bytes:
    return json.dumps({name: [secret.kind, secret.data.hex()] for name, secret in secrets.items()}).encode()


def _load_secrets(data: bytes) -> dict[str, SecretValue]:
    return {name: SecretValue(kind=kind, data=bytes.fromhex(value)) for name, (kind, value) in json.loads(data).items()}
