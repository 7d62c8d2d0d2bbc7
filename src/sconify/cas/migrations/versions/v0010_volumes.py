"""The states of volumes, leases of services that run once at a time, counters that only grow."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "volume_states",
        sa.Column("session", sa.Text, primary_key=True),
        sa.Column("volume", sa.Text, primary_key=True),
        sa.Column("key_digest", sa.LargeBinary, primary_key=True),
        sa.Column("counter", sa.BigInteger, nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("sealed_root", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "leases",
        sa.Column("service", sa.Text, primary_key=True),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
    )
