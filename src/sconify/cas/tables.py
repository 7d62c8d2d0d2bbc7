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

collateral = Table(
    "collateral",
    metadata,
    Column("name", Text, primary_key=True),
    # Counts replacements: of two that race, one sees that the other was first.
    Column("version", BigInteger, nullable=False),
    # It is no secret; sealed, the owner of the database can't replace a document by an older one of another name.
    Column("sealed_content", LargeBinary, nullable=False),
)
