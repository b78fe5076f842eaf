"""Keys, the audit, erasures, and how long a camera's crops are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
# Older code names its columns and knows nothing of what is added here.
compatible_from = "0004"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add tables and a column; what is stored stays as it is."""
    # First, because it may take long: writes of crops wait for it, and nothing else does yet.
    op.create_index(
        op.f("ix_crops_camera_row_capture_time"), "crops", ["camera_row", "capture_time"]
    )
    op.create_table(
        "api_keys",
        sa.Column("key_row", _ROW_ID, nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("display_name", sa.String(length=200), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("galleries", sa.JSON(), nullable=False),
        sa.Column("camera_ids", sa.JSON(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=True),
        sa.Column("end_time", sa.BigInteger(), nullable=True),
        sa.Column("requests_per_minute", sa.Integer(), nullable=False),
        sa.Column("requests_per_day", sa.Integer(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("expire_time", sa.BigInteger(), nullable=True),
        sa.Column("revoke_time", sa.BigInteger(), nullable=True),
        sa.Column("creator", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("key_row", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("key_id", name=op.f("uq_api_keys_key_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "audit_entries",
        sa.Column("chain_id", sa.LargeBinary(16), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("record_time", sa.BigInteger(), nullable=False),
        sa.Column("principal", sa.String(length=200), nullable=False),
        sa.Column("action", sa.String(length=100), nullable=False),
        sa.Column("gallery", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("chain_id", "sequence", name=op.f("pk_audit_entries")),
    )
    op.create_index(op.f("ix_audit_entries_record_time"), "audit_entries", ["record_time"])
    op.create_table(
        "audit_checkpoints",
        sa.Column("chain_id", sa.LargeBinary(16), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("record_time", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("signer", sa.String(length=64), nullable=False),
        sa.Column("signature", sa.LargeBinary(64), nullable=False),
        sa.Column("anchor_time", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("chain_id", "sequence", "kind", name=op.f("pk_audit_checkpoints")),
    )
    op.create_table(
        "audit_signers",
        sa.Column("signer", sa.String(length=64), nullable=False),
        sa.Column("public_key", sa.Text(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("signer", name=op.f("pk_audit_signers")),
    )
    op.create_table(
        "erasures",
        sa.Column("erasure_row", _ROW_ID, nullable=False),
        sa.Column("gallery_row", _ROW_ID, nullable=False),
        sa.Column("erasure_id", sa.LargeBinary(16), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.String(length=500), nullable=False),
        sa.Column("principal", sa.String(length=200), nullable=False),
        sa.Column("confirmer", sa.String(length=200), nullable=False),
        sa.Column("listed", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.BigInteger(), nullable=False),
        sa.Column("removed", sa.BigInteger(), nullable=False),
        sa.Column("absent", sa.BigInteger(), nullable=False),
        sa.Column("more", sa.Boolean(), nullable=False),
        sa.Column("vectors", sa.JSON(), nullable=False),
        sa.Column("create_time", sa.BigInteger(), nullable=False),
        sa.Column("confirm_time", sa.BigInteger(), nullable=True),
        sa.Column("complete_time", sa.BigInteger(), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["gallery_row"], ["galleries.gallery_row"], name=op.f("fk_erasures_gallery_row")
        ),
        sa.PrimaryKeyConstraint("erasure_row", name=op.f("pk_erasures")),
        sa.UniqueConstraint("erasure_id", name=op.f("uq_erasures_erasure_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_erasures_gallery_row_erasure_row"), "erasures", ["gallery_row", "erasure_row"]
    )
    op.create_table(
        "erasure_crops",
        sa.Column("erasure_row", _ROW_ID, nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("crop_id", sa.LargeBinary(16), nullable=False),
        sa.Column("blob_id", sa.LargeBinary(16), nullable=True),
        sa.Column("score", sa.Float(), nullable=True),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("remove_time", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["erasure_row"], ["erasures.erasure_row"], name=op.f("fk_erasure_crops_erasure_row")
        ),
        sa.PrimaryKeyConstraint("erasure_row", "place", name=op.f("pk_erasure_crops")),
        sa.UniqueConstraint(
            "erasure_row", "crop_id", name=op.f("uq_erasure_crops_erasure_row_crop_id")
        ),
    )
    # Last: from here to the commit nobody reads these, heartbeats included.
    op.add_column("cameras", sa.Column("retention_days", sa.Float(), nullable=True))
    op.add_column("replicas", sa.Column("schema_revision", sa.String(length=32), nullable=True))
