"""The first schema: galleries, cameras, crops, embeddings, models and the log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "blob_removals",
        sa.Column("blob_key", sa.String(length=255), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("blob_key", name=op.f("pk_blob_removals")),
    )
    op.create_table(
        "galleries",
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("name", sa.String(length=63), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("gallery_row", name=op.f("pk_galleries")),
        sa.UniqueConstraint("name", name=op.f("uq_galleries_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "cameras",
        sa.Column("camera_row", _ROW_ID, nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("camera_id", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_cameras_gallery_row")
        ),
        sa.PrimaryKeyConstraint("camera_row", name=op.f("pk_cameras")),
        sa.UniqueConstraint(
            "gallery_row", "camera_id", name=op.f("uq_cameras_gallery_row_camera_id")
        ),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "changes",
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("crop_id", sa.LargeBinary(16), nullable=True),
        sa.Column("camera_row", _ROW_ID, nullable=True),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_changes_gallery_row")
        ),
        sa.PrimaryKeyConstraint("gallery_row", "position", name=op.f("pk_changes")),
    )
    op.create_table(
        "models",
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("version", sa.String(length=128), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_models_gallery_row")
        ),
        sa.PrimaryKeyConstraint("model_row", name=op.f("pk_models")),
        sa.UniqueConstraint("gallery_row", "version", name=op.f("uq_models_gallery_row_version")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "crops",
        sa.Column("crop_row", _ROW_ID, nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("crop_id", sa.LargeBinary(16), nullable=False),
        sa.Column("camera_row", _ROW_ID, nullable=False),
        sa.Column("capture_time", sa.BigInteger(), nullable=False),
        sa.Column("track_id", sa.String(length=128), nullable=False),
        sa.Column("zone", sa.String(length=64), nullable=False),
        sa.Column("attributes", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("blob_id", sa.LargeBinary(16), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["camera_row"], ["cameras.camera_row"], name=op.f("fk_crops_camera_row")
        ),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_crops_gallery_row")
        ),
        sa.PrimaryKeyConstraint("crop_row", name=op.f("pk_crops")),
        sa.UniqueConstraint("blob_id", name=op.f("uq_crops_blob_id")),
        sa.UniqueConstraint("gallery_row", "crop_id", name=op.f("uq_crops_gallery_row_crop_id")),
        sa.UniqueConstraint(
            "gallery_row",
            "sha256",
            "camera_row",
            "capture_time",
            "track_id",
            name=op.f("uq_crops_gallery_row_sha256_camera_row_capture_time_track_id"),
        ),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_crops_camera_row"), "crops", ["camera_row"])
    op.create_index(
        op.f("ix_crops_gallery_row_capture_time_crop_id"),
        "crops",
        ["gallery_row", "capture_time", "crop_id"],
    )

    op.create_table(
        "embeddings",
        sa.Column("crop_row", _ROW_ID, nullable=False),
        sa.Column("model_row", _ROW_ID, nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["crop_row"],
            ["crops.crop_row"],
            name=op.f("fk_embeddings_crop_row"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["model_row"], ["models.model_row"], name=op.f("fk_embeddings_model_row")
        ),
        sa.PrimaryKeyConstraint("crop_row", "model_row", name=op.f("pk_embeddings")),
    )
