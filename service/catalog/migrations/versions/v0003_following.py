"""The log followed by replicas: who follows, up to where, and two more kinds of change."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add columns and tables; what is stored stays as it is."""
    op.add_column(
        "galleries", sa.Column("generation", sa.BigInteger(), nullable=False, server_default="0")
    )
    op.add_column("changes", sa.Column("cut_off", sa.BigInteger(), nullable=True))
    op.create_table(
        "replicas",
        sa.Column("replica_id", sa.LargeBinary(16), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("heartbeat_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("replica_id", name=op.f("pk_replicas")),
    )
    op.create_table(
        "replica_positions",
        sa.Column("replica_id", sa.LargeBinary(16), nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["replica_id"],
            ["replicas.replica_id"],
            name=op.f("fk_replica_positions_replica_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["gallery_row"],
            ["galleries.gallery_row"],
            name=op.f("fk_replica_positions_gallery_row"),
        ),
        sa.PrimaryKeyConstraint("replica_id", "gallery_row", name=op.f("pk_replica_positions")),
    )
