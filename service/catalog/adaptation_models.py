"""Tables of adaptation runs: what each is about, its lease and the crops it used."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Table,
    Text,
)

from service.catalog.columns import Micros, RowId, Uuid16, metadata

__all__ = ["adaptation_leases", "adaptation_run_crops", "adaptation_runs"]

adaptation_runs = Table(
    "adaptation_runs",
    metadata,
    Column("run_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("run_id", Uuid16, nullable=False, unique=True),
    # SHA-256 of the lease token: whoever reads the catalog cannot act for the holder.
    Column("token_digest", LargeBinary(32), nullable=False),
    Column("state", String(16), nullable=False),
    Column("holder", String(200), nullable=False),
    Column("lease_micros", BigInteger, nullable=False),
    # The window: since_row < crop_row <= until_row.
    Column("since_row", BigInteger, nullable=False),
    Column("until_row", BigInteger, nullable=False),
    Column("start_time", Micros, nullable=False),
    Column("update_time", Micros, nullable=False),
    Column("end_time", Micros, nullable=True),
    Column("stage", String(64), nullable=False),
    Column("fraction", Float, nullable=False),
    Column("progress_message", String(500), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("message", String(2000), nullable=False),
    Column("model_version", String(128), nullable=False),
    Column("new_crops", BigInteger, nullable=False),
    Column("replay_crops", BigInteger, nullable=False),
    Column("figures", Text, nullable=True),
    Index(None, "gallery_row", "run_row"),
    sqlite_autoincrement=True,
)

# The gallery is the key: two leases of one gallery cannot be stored.
adaptation_leases = Table(
    "adaptation_leases",
    metadata,
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), primary_key=True),
    Column("run_row", RowId, ForeignKey("adaptation_runs.run_row"), nullable=False),
    Column("expire_time", Micros, nullable=False),
)

# Crops are named by id, not by row: the record outlives the crop.
adaptation_run_crops = Table(
    "adaptation_run_crops",
    metadata,
    Column("run_row", RowId, ForeignKey("adaptation_runs.run_row"), primary_key=True),
    Column("crop_id", Uuid16, primary_key=True),
    Column("replay", Boolean, nullable=False),
    # Which runs used this crop: asked when a person is to be forgotten.
    Index(None, "crop_id"),
)
