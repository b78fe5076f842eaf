"""Tables of access, audit and erasure."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from service.catalog.columns import Micros, RowId, Uuid16, metadata

__all__ = [
    "api_keys",
    "audit_checkpoints",
    "audit_entries",
    "audit_signers",
    "erasure_crops",
    "erasures",
]

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
    # head: the chain as it was; base: what was before it is removed.
    Column("kind", String(8), primary_key=True),
    Column("record_time", Micros, nullable=False),
    Column("digest", LargeBinary(32), nullable=False),
    Column("signer", String(64), nullable=False),
    Column("signature", LargeBinary(64), nullable=False),
    # When it was copied outside; null while it was not.
    Column("anchor_time", Micros, nullable=True),
)

audit_signers = Table(
    "audit_signers",
    metadata,
    Column("signer", String(64), primary_key=True),
    Column("public_key", Text, nullable=False),
    Column("create_time", Micros, nullable=False),
)

erasures = Table(
    "erasures",
    metadata,
    Column("erasure_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("erasure_id", Uuid16, nullable=False, unique=True),
    Column("state", String(16), nullable=False),
    # Canonical JSON; never an image.
    Column("subject", Text, nullable=False),
    Column("reason", String(500), nullable=False),
    Column("principal", String(200), nullable=False),
    Column("confirmer", String(200), nullable=False),
    # Rows of `erasure_crops` by outcome; `listed` are those that are to go, or went.
    Column("listed", BigInteger, nullable=False),
    Column("kept", BigInteger, nullable=False),
    Column("removed", BigInteger, nullable=False),
    Column("absent", BigInteger, nullable=False),
    # Whether more crops matched than the list may hold.
    Column("more", Boolean, nullable=False),
    # Vectors removed, by key of the model.
    Column("vectors", JSON, nullable=False),
    Column("create_time", Micros, nullable=False),
    Column("confirm_time", Micros, nullable=True),
    Column("complete_time", Micros, nullable=True),
    Column("receipt", Text, nullable=False),
    Index(None, "gallery_row", "erasure_row"),
    sqlite_autoincrement=True,
)

# Crops are named by id and stored instance, not by row: the list outlives the crop, and a crop that
# is ingested again under the same id is not on it.
erasure_crops = Table(
    "erasure_crops",
    metadata,
    Column("erasure_row", RowId, ForeignKey("erasures.erasure_row"), primary_key=True),
    Column("place", BigInteger, primary_key=True, autoincrement=False),
    Column("crop_id", Uuid16, nullable=False),
    # None for an id of which nothing was stored when the list was made.
    Column("blob_id", Uuid16, nullable=True),
    Column("score", Float, nullable=True),
    Column("outcome", String(8), nullable=False),
    Column("remove_time", Micros, nullable=True),
    UniqueConstraint("erasure_row", "crop_id"),
)
