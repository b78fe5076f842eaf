"""Nightly adaptation: runs, their leases and crops, and the bundles they registered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables and two orders of the crops; what is stored stays as it is."""
    op.drop_index(op.f("ix_crops_camera_row"), "crops")
    op.create_index(op.f("ix_crops_camera_row_crop_row"), "crops", ["camera_row", "crop_row"])
    op.create_index(op.f("ix_crops_gallery_row_crop_row"), "crops", ["gallery_row", "crop_row"])
    op.create_table(
        "adaptation_runs",
        sa.Column("run_row", _ROW_ID, nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("run_id", sa.LargeBinary(16), nullable=False),
        sa.Column("token_digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("lease_micros", sa.BigInteger(), nullable=False),
        sa.Column("since_row", sa.BigInteger(), nullable=False),
        sa.Column("until_row", sa.BigInteger(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("update_time", sa.BigInteger(), nullable=False),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("stage", sa.String(length=64), nullable=False),
        sa.Column("fraction", sa.Float(), nullable=False),
        sa.Column("progress_message", sa.String(length=500), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("message", sa.String(length=2000), nullable=False),
        sa.Column("model_version", sa.String(length=128), nullable=False),
        sa.Column("new_crops", sa.BigInteger(), nullable=False),
        sa.Column("replay_crops", sa.BigInteger(), nullable=False),
        sa.Column("figures", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_adaptation_runs_gallery_row")
        ),
        sa.PrimaryKeyConstraint("run_row", name=op.f("pk_adaptation_runs")),
        sa.UniqueConstraint("run_id", name=op.f("uq_adaptation_runs_run_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_adaptation_runs_gallery_row_run_row"),
        "adaptation_runs",
        ["gallery_row", "run_row"],
    )
    op.create_table(
        "adaptation_leases",
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("run_row", _ROW_ID, nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_row"],
            ["galleries.gallery_row"],
            name=op.f("fk_adaptation_leases_gallery_row"),
        ),
        sa.ForeignKeyConstraint(
            ["run_row"], ["adaptation_runs.run_row"], name=op.f("fk_adaptation_leases_run_row")
        ),
        sa.PrimaryKeyConstraint("gallery_row", name=op.f("pk_adaptation_leases")),
    )
    op.create_table(
        "adaptation_run_crops",
        sa.Column("run_row", _ROW_ID, nullable=False),
        sa.Column("crop_id", sa.LargeBinary(16), nullable=False),
        sa.Column("replay", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_row"], ["adaptation_runs.run_row"], name=op.f("fk_adaptation_run_crops_run_row")
        ),
        sa.PrimaryKeyConstraint("run_row", "crop_id", name=op.f("pk_adaptation_run_crops")),
    )
    op.create_index(op.f("ix_adaptation_run_crops_crop_id"), "adaptation_run_crops", ["crop_id"])
    op.create_table(
        "model_bundles",
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("run_row", _ROW_ID, nullable=True),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("parent_version", sa.String(length=128), nullable=False),
        sa.Column("method", sa.String(length=64), nullable=False),
        sa.Column("gate_outcome", sa.String(length=16), nullable=False),
        sa.Column("gate_score", sa.Float(), nullable=False),
        sa.Column("gate_reasons", sa.JSON(), nullable=False),
        sa.Column("gate_report", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_row"], ["models.model_row"], name=op.f("fk_model_bundles_model_row")
        ),
        sa.ForeignKeyConstraint(
            ["run_row"], ["adaptation_runs.run_row"], name=op.f("fk_model_bundles_run_row")
        ),
        sa.PrimaryKeyConstraint("model_row", name=op.f("pk_model_bundles")),
    )
