"""Tables of access, audit and erasure."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
)

from service.catalog.columns import Micros, RowId, Uuid16, metadata

__all__ = ["api_keys", "audit_checkpoints", "audit_entries", "erasure_crops", "erasures"]

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_row", RowId, primary_key=True),
    Column("key_id", String(32), nullable=False, unique=True),
    # Of a secret of 256 random bits, so that nothing slower than SHA-256 is needed.
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("galleries", JSON, nullable=False),
    Column("camera_ids", JSON, nullable=False),
    Column("start_time", Micros, nullable=True),
    Column("end_time", Micros, nullable=True),
    Column("requests_per_minute", Integer, nullable=False),
    Column("requests_per_day", Integer, nullable=False),
    Column("create_time", Micros, nullable=False),
    Column("expire_time", Micros, nullable=True),
    Column("revoke_time", Micros, nullable=True),
    Column("creator", String(200), nullable=False),
    sqlite_autoincrement=True,
)

# One hash chain for each process that writes one.
audit_entries = Table(
    "audit_entries",
    metadata,
    Column("chain_id", Uuid16, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("record_time", Micros, nullable=False),
    Column("principal", String(200), nullable=False),
    Column("action", String(100), nullable=False),
    Column("gallery", String(64), nullable=False),
    # The canonical JSON, which the digest is of.
    Column("body", Text, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Index(None, "record_time"),
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("chain_id", Uuid16, primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("record_time", Micros, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("signer", String(64), nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("erasure_id", Uuid16, nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    Column("subject", Text, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("principal", String(200), nullable=False),
    Column("crops", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False),
    Column("create_time", Micros, nullable=False),
    Column("complete_time", Micros, nullable=True),
    Column("receipt", Text, nullable=False),
    Index(None, "gallery_row", "erasure_row"),
    sqlite_autoincrement=True,
)

erasure_crops = Table(
    "erasure_crops",
    metadata,
    Column("erasure_row", RowId, ForeignKey("erasures.erasure_row"), primary_key=True),
    Column("crop_id", Uuid16, primary_key=True),
    Column("score", Float, nullable=True),
    Column("remove_time", Micros, nullable=True),
)
