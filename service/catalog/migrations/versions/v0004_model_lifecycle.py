"""Models through their lives: vectors filled in, crops that failed, vectors to delete, history."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add tables; what is stored stays as it is."""
    op.create_table(
        "model_fillings",
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("last_row", sa.BigInteger(), nullable=False),
        sa.Column("until_row", sa.BigInteger(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.Column("done", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.LargeBinary(16), nullable=True),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("complete_time", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["model_row"], ["models.model_row"], name=op.f("fk_model_fillings_model_row")
        ),
        sa.PrimaryKeyConstraint("model_row", name=op.f("pk_model_fillings")),
    )
    op.create_table(
        "model_failures",
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("crop_row", _ROW_ID, nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_row"], ["models.model_row"], name=op.f("fk_model_failures_model_row")
        ),
        sa.ForeignKeyConstraint(
            ["crop_row"],
            ["crops.crop_row"],
            name=op.f("fk_model_failures_crop_row"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("model_row", "crop_row", name=op.f("pk_model_failures")),
    )
    op.create_index(op.f("ix_model_failures_crop_row"), "model_failures", ["crop_row"])
    op.create_table(
        "model_removals",
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("last_row", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_row"], ["models.model_row"], name=op.f("fk_model_removals_model_row")
        ),
        sa.PrimaryKeyConstraint("model_row", name=op.f("pk_model_removals")),
    )
    op.create_table(
        "model_events",
        sa.Column("event_row", _ROW_ID, nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("actor", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_model_events_gallery_row")
        ),
        sa.ForeignKeyConstraint(
            ["model_row"], ["models.model_row"], name=op.f("fk_model_events_model_row")
        ),
        sa.PrimaryKeyConstraint("event_row", name=op.f("pk_model_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_model_events_gallery_row_event_row"), "model_events", ["gallery_row", "event_row"]
    )
