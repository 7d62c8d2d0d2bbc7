"""Collateral: what evidence of hardware is verified against."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0001"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "collateral",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("sealed_content", sa.LargeBinary, nullable=False),
    )
