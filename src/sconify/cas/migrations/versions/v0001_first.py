"""The first schema: keys, session versions, used nonces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "keys",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("sealed_key", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "session_versions",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("hash_digest", sa.LargeBinary, nullable=False),
        sa.Column("creator", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("sealed_text", sa.LargeBinary, nullable=False),
        sa.Column("sealed_secrets", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("name", "hash_digest"),
    )
    op.create_table(
        "used_nonces",
        sa.Column("nonce", sa.LargeBinary, primary_key=True),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_used_nonces_expires_at", "used_nonces", ["expires_at"])
