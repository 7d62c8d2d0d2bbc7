"""The tables of the store. Migrations (``migrations/``) make them; columns named ``sealed_*`` hold ciphertext."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text, UniqueConstraint

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sealed_key", LargeBinary, nullable=False),
)

session_versions = Table(
    "session_versions",
    metadata,
    Column("name", Text, primary_key=True),
    # 1, 2, 3, ...: two updates that race for the same number can't both be inserted.
    Column("version", Integer, primary_key=True),
    # A keyed digest of the session hash: the hash itself would let the store's owner guess weak secrets.
    Column("hash_digest", LargeBinary, nullable=False),
    Column("creator", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("sealed_text", LargeBinary, nullable=False),
    Column("sealed_secrets", LargeBinary, nullable=False),
    UniqueConstraint("name", "hash_digest"),
)

used_nonces = Table(
    "used_nonces",
    metadata,
    Column("nonce", LargeBinary, primary_key=True),
    Column("expires_at", BigInteger, nullable=False, index=True),
)

volume_states = Table(
    "volume_states",
    metadata,
    Column("session", Text, primary_key=True),
    Column("volume", Text, primary_key=True),
    # A keyed digest of the volume's key: under another key there is another volume, with a state of its own.
    Column("key_digest", LargeBinary, primary_key=True),
    Column("counter", BigInteger, nullable=False),
    # The run that advanced it last.
    Column("run", Text, nullable=False),
    Column("sealed_root", LargeBinary, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    # The service that may run once at a time only, as its configuration id.
    Column("service", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

collateral = Table(
    "collateral",
    metadata,
    Column("name", Text, primary_key=True),
    # Counts replacements: of two that race, one sees that the other was first.
    Column("version", BigInteger, nullable=False),
    # It is no secret; sealed, the owner of the database can't replace a document by an older one of another name.
    Column("sealed_content", LargeBinary, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
    # A keyed digest of name and value: nobody but the CAS can set it.
    Column("digest", LargeBinary, nullable=False),
)
