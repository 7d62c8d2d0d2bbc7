"""The store of the CAS: append-only session versions, keys, used nonces, counters; everything secret encrypted.

Several processes may share one store. A version is one row, so it is there whole or not at all.

Everything is encrypted and authenticated under keys that are derived from the *root key*, which is kept in the store
itself, sealed under the master key. So another master key needs one row to be written anew (``rotate_master_key``).
"""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from sconify.cas.database import Database, reported
from sconify.cas.errors import ConflictError
from sconify.cas.master_key import KEY_SIZE, MasterKeyProvider
from sconify.cas.sealing import Authenticator, Sealer
from sconify.cas.secret_records import dump_secrets, load_secrets
from sconify.cas.tables import collateral, counters, keys, session_versions, used_nonces
from sconify.errors import ServiceError, UntrustedDataError, UserError
from sconify.policy.formats import SecretValue

_ROOT_KEY = "root"
_GENERATION = "generation"

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
        creator: Who created the session: a key hash, or ``signer:`` and one.
        text: Its YAML, with the creator in it.
        secrets: The values of its own secrets by name.
        volume_keys: The keys of its own volumes by name, 32 bytes each.
        created_at: Seconds since 1970; 0 before it is stored.
    """

    name: str
    version: int
    creator: str
    text: str = field(repr=False)
    secrets: Mapping[str, SecretValue] = field(repr=False)
    volume_keys: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    created_at: int = field(default=0, compare=False)


class Store:
    """Opens or creates a store.

    Args:
        directory: The state directory; made with mode 0700 if it does not exist.
        master_key: Gives the key under which the root key is encrypted.
        database_url: ``postgresql://...``; None: SQLite in the state directory.

    Raises:
        UserError: The master key is missing or is another store's.
        ServiceError: The directory or database can't be used.
    """

    def __init__(self, directory: Path, *, master_key: MasterKeyProvider, database_url: str | None = None) -> None:
        self.database = Database(directory, url=database_url)
        try:
            with self.database.prepared() as new:
                master = master_key.master_key(create=new)
        except BaseException:
            self.database.close()
            raise
        self.root_key = self._open_root_key(master)
        self._sealer = Sealer(self.root_key, purpose="store")
        self._hashes = Authenticator(self.root_key, purpose="session hash")
        self._counters = Authenticator(self.root_key, purpose="counter")

    def close(self) -> None:
        """Close all connections."""
        self.database.close()

    def fixed(self, name: str, *, new: bytes) -> bytes:
        """Return what the store was given under a name at first; that is ``new`` if there is nothing yet.

        Raises:
            UserError: It was sealed under another master key.
        """
        return self._fixed(name, new=new, sealer=self._sealer)

    def known(self, name: str) -> bytes | None:
        """Return what the store was given under a name by ``fixed``, or None."""
        with reported("the store"), self.database.fast.connect() as connection:
            row = connection.execute(sa.select(keys.c.sealed_key).where(keys.c.name == name)).first()
        return None if row is None else self._sealer.open(bytes(row.sealed_key), place=("keys", name, "key"))

    def rotate_master_key(self, old: bytes, new: bytes) -> None:
        """Seal the root key under another master key; the old one opens nothing from then on.

        Raises:
            UserError: The old key is not that of this store.
        """
        root = self._fixed(_ROOT_KEY, new=b"", sealer=Sealer(old, purpose="root key"))
        sealed = Sealer(new, purpose="root key").seal(root, place=("keys", _ROOT_KEY, "key"))
        with self.database.transaction() as connection:
            connection.execute(keys.update().where(keys.c.name == _ROOT_KEY).values(sealed_key=sealed))

    def append(self, session: StoredSession, *, session_hash: str) -> int:
        """Add a version: atomic, also between processes.

        Returns:
            The generation of the store with it.

        Raises:
            ConflictError: The version exists already, because somebody else was first, or the hash does.
        """
        place = ("session_versions", session.name, str(session.version), session.creator)
        values = {
            "name": session.name,
            "version": session.version,
            "hash_digest": self._hash_digest(session.name, session_hash),
            "creator": session.creator,
            "created_at": int(time.time()),
            "sealed_text": self._sealer.seal(session.text.encode(), place=(*place, "text")),
            "sealed_secrets": self._sealer.seal(
                dump_secrets(session.secrets, session.volume_keys), place=(*place, "secrets")
            ),
        }
        try:
            with self.database.transaction() as connection:
                connection.execute(session_versions.insert().values(**values))
                return self._grow(connection, _GENERATION)
        except IntegrityError:
            raise ConflictError(f"session {session.name} was changed by somebody else at the same time") from None

    def latest_version(self, name: str) -> int:
        """Return the number of the latest version of a session, 0 if there is none."""
        with reported("the store"), self.database.fast.connect() as connection:
            return connection.execute(_LATEST_VERSION, {"name": name}).scalar_one() or 0

    def names(self, *, below: str, after: str, limit: int) -> list[str]:
        """Return names of sessions in their order.

        Args:
            below: A prefix that they have.
            after: Only names behind this one.
            limit: How many at most.
        """
        column = session_versions.c.name
        query = (
            sa.select(column)
            .where(column.startswith(below, autoescape=True), column > after, session_versions.c.version == 1)
            .order_by(column)
            .limit(limit)
        )
        with reported("the store"), self.database.fast.connect() as connection:
            return list(connection.execute(query).scalars())

    def is_empty(self) -> bool:
        """Tell whether there is no session at all."""
        with reported("the store"), self.database.fast.connect() as connection:
            return connection.execute(sa.select(session_versions.c.name).limit(1)).first() is None

    def load(self, name: str, version: int) -> StoredSession | None:
        """Return a version of a session, or None."""
        return next(iter(self._load(name, session_versions.c.version == version)), None)

    def load_by_hash(self, name: str, session_hash: str) -> StoredSession | None:
        """Return the version of a session that has this hash, or None."""
        digest = self._hash_digest(name, session_hash)
        return next(iter(self._load(name, session_versions.c.hash_digest == digest)), None)

    def load_all(self, name: str) -> Sequence[StoredSession]:
        """Return all versions of a session, the first one first."""
        return self._load(name, sa.true())

    def use_nonce(self, nonce: bytes, *, expires_at: int) -> bool:
        """Mark a nonce as used; False if it was used before, by whichever process."""
        try:
            with reported("the store"), self.database.fast.connect() as connection:
                connection.execute(_USE_NONCE, {"nonce": nonce, "expires_at": expires_at})
        except IntegrityError:
            return False
        return True

    def forget_nonces(self, *, expired_before: int) -> None:
        """Drop used nonces that are too old to be accepted anyway (seconds since 1970)."""
        with reported("the store"), self.database.fast.connect() as connection:
            connection.execute(used_nonces.delete().where(used_nonces.c.expires_at < expired_before))

    def document(self, name: str) -> bytes | None:
        """Return a document of collateral, or None."""
        found = self._document(name)
        return None if found is None else found[1]

    def documents(self) -> list[str]:
        """Return the names of all documents of collateral."""
        with reported("the store"), self.database.fast.connect() as connection:
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
            with self.database.transaction() as connection:
                if found is None:
                    connection.execute(collateral.insert().values(name=name, **values))
                    return True
                update = collateral.update().where(collateral.c.name == name, collateral.c.version == version)
                return bool(connection.execute(update.values(**values)).rowcount)
        except IntegrityError:
            return False

    def _document(self, name: str) -> tuple[int, bytes] | None:
        query = sa.select(collateral.c.version, collateral.c.sealed_content).where(collateral.c.name == name)
        with reported("the store"), self.database.fast.connect() as connection:
            row = connection.execute(query).first()
        if row is None:
            return None
        place = ("collateral", name, str(row.version))
        return row.version, self._sealer.open(bytes(row.sealed_content), place=place)

    @property
    def generation(self) -> int:
        """A number that grows with what is stored: an older copy of the database has a smaller one."""
        return self.counter(_GENERATION)

    def checkpoint(self) -> int:
        """Let the generation grow, and return it."""
        with self.database.transaction() as connection:
            return self._grow(connection, _GENERATION)

    def counter(self, name: str) -> int:
        """Return the value of a counter, 0 if it was never set.

        Raises:
            ServiceError: Somebody has changed it in the database.
        """
        with reported("the store"), self.database.fast.connect() as connection:
            row = connection.execute(sa.select(counters).where(counters.c.name == name)).first()
        return 0 if row is None else self._checked(row)

    def raise_counter(self, name: str, value: int) -> None:
        """Set a counter to a value, if that is larger than what it has."""
        with self.database.transaction() as connection:
            self._grow(connection, name, to=value)

    def _grow(self, connection: sa.Connection, name: str, *, to: int | None = None) -> int:
        query = sa.select(counters).where(counters.c.name == name).with_for_update()
        row = connection.execute(query).first()
        if row is None and connection.dialect.name == "postgresql":
            # Two that begin at once: one inserts, the other waits for its row.
            first = {"name": name, "value": 0, "digest": self._counter_digest(name, 0)}
            connection.execute(postgresql.insert(counters).values(**first).on_conflict_do_nothing())
            row = connection.execute(query).first()
        value = 0 if row is None else self._checked(row)
        grown = value + 1 if to is None else max(value, to)
        values = {"value": grown, "digest": self._counter_digest(name, grown)}
        if row is None:
            connection.execute(counters.insert().values(name=name, **values))
        else:
            connection.execute(counters.update().where(counters.c.name == name).values(**values))
        return grown

    def _checked(self, row: sa.Row[tuple[str, int, bytes]]) -> int:
        if bytes(row.digest) != self._counter_digest(row.name, row.value):
            raise ServiceError(f"the store's counter {row.name} was changed", remedy="restore a backup")
        return int(row.value)

    def _counter_digest(self, name: str, value: int) -> bytes:
        return self._counters.digest(f"{name}\0{value}".encode())

    def _load(self, name: str, condition: sa.ColumnElement[bool]) -> Sequence[StoredSession]:
        query = sa.select(session_versions).where(session_versions.c.name == name, condition)
        with reported("the store"), self.database.fast.connect() as connection:
            rows = connection.execute(query.order_by(session_versions.c.version)).all()
        found = []
        for row in rows:
            place = ("session_versions", row.name, str(row.version), row.creator)
            secrets, volume_keys = load_secrets(self._sealer.open(row.sealed_secrets, place=(*place, "secrets")))
            found.append(
                StoredSession(
                    name=row.name,
                    version=row.version,
                    creator=row.creator,
                    text=self._sealer.open(row.sealed_text, place=(*place, "text")).decode(),
                    secrets=secrets,
                    volume_keys=volume_keys,
                    created_at=row.created_at,
                )
            )
        return found

    def _hash_digest(self, name: str, session_hash: str) -> bytes:
        return self._hashes.digest(f"{name}\0{session_hash}".encode())

    def _open_root_key(self, master: bytes) -> bytes:
        """Return the root key; in stores of the first version the master key itself took its place."""
        with reported("the store"), self.database.fast.connect() as connection:
            old = connection.execute(sa.select(keys.c.name).where(keys.c.name == "cas")).first() is not None
        new = master if old else random.token_bytes(KEY_SIZE)
        return self._fixed(_ROOT_KEY, new=new, sealer=Sealer(master, purpose="root key"))

    def _fixed(self, name: str, *, new: bytes, sealer: Sealer) -> bytes:
        place = ("keys", name, "key")
        query = sa.select(keys.c.sealed_key).where(keys.c.name == name)
        try:
            with self.database.transaction() as connection:
                row = connection.execute(query).first()
                if row is None:
                    connection.execute(keys.insert().values(name=name, sealed_key=sealer.seal(new, place=place)))
                    return new
        except IntegrityError:  # another replica was first: its key counts
            with self.database.transaction() as connection:
                row = connection.execute(query).one()
        try:
            return sealer.open(bytes(row.sealed_key), place=place)
        except UntrustedDataError:
            raise UserError(
                "the store was written under another master key",
                remedy="give the right one with --master-key-file=FILE",
            ) from None
