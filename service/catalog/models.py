"""The tables. Portable SQL only: the same metadata serves SQLite and PostgreSQL."""

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
    SmallInteger,
    String,
    Table,
    UniqueConstraint,
)

from service.catalog.adaptation_models import (
    adaptation_leases,
    adaptation_run_crops,
    adaptation_runs,
)
from service.catalog.columns import Micros, RowId, Uuid16, metadata
from service.catalog.governance_models import (
    api_keys,
    audit_checkpoints,
    audit_entries,
    audit_signers,
    erasure_crops,
    erasures,
)

__all__ = [
    "CHANGE_CAMERA_ADDED",
    "CHANGE_CROPS_DROPPED",
    "CHANGE_CROP_ADDED",
    "CHANGE_CROP_DELETED",
    "CHANGE_MODELS",
    "CHANGE_VECTOR_ADDED",
    "Micros",
    "Uuid16",
    "adaptation_leases",
    "adaptation_run_crops",
    "adaptation_runs",
    "api_keys",
    "audit_checkpoints",
    "audit_entries",
    "audit_signers",
    "blob_removals",
    "cameras",
    "changes",
    "crops",
    "embeddings",
    "erasure_crops",
    "erasures",
    "galleries",
    "metadata",
    "model_bundles",
    "model_events",
    "model_failures",
    "model_fillings",
    "model_removals",
    "models",
    "replica_positions",
    "replicas",
]

CHANGE_CAMERA_ADDED = 1
CHANGE_CROP_ADDED = 2
CHANGE_CROP_DELETED = 3
CHANGE_VECTOR_ADDED = 4
CHANGE_CROPS_DROPPED = 5
CHANGE_MODELS = 6

galleries = Table(
    "galleries",
    metadata,
    Column("gallery_row", RowId, primary_key=True),
    Column("name", String(63), nullable=False, unique=True),
    # Newest position of the log. Updating it first locks the gallery until the commit, so that
    # positions become visible in order.
    Column("position", BigInteger, nullable=False, default=0),
    # How often the states of its models have changed. Vectors made before a change are refused.
    Column("generation", BigInteger, nullable=False, default=0, server_default="0"),
    Column("create_time", Micros, nullable=False),
    sqlite_autoincrement=True,
)

models = Table(
    "models",
    metadata,
    Column("model_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("version", String(128), nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("create_time", Micros, nullable=False),
    UniqueConstraint("gallery_row", "version"),
    sqlite_autoincrement=True,
)

cameras = Table(
    "cameras",
    metadata,
    Column("camera_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("camera_id", String(64), nullable=False),
    Column("display_name", String(200), nullable=False),
    Column("zone", String(64), nullable=False),
    # How long its crops are kept; none: as long as the service keeps every crop.
    Column("retention_days", Float, nullable=True),
    Column("create_time", Micros, nullable=False),
    UniqueConstraint("gallery_row", "camera_id"),
    sqlite_autoincrement=True,
)

crops = Table(
    "crops",
    metadata,
    Column("crop_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("crop_id", Uuid16, nullable=False),
    Column("camera_row", RowId, ForeignKey("cameras.camera_row"), nullable=False),
    Column("capture_time", Micros, nullable=False),
    Column("track_id", String(128), nullable=False),
    Column("zone", String(64), nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("blob_id", Uuid16, nullable=False, unique=True),
    Column("create_time", Micros, nullable=False),
    UniqueConstraint("gallery_row", "crop_id"),
    # What makes two crops the same. The digest comes early because lookups give it.
    UniqueConstraint("gallery_row", "sha256", "camera_row", "capture_time", "track_id"),
    Index(None, "gallery_row", "capture_time", "crop_id"),
    # The order in which a night is fed, of one camera and of all.
    Index(None, "camera_row", "crop_row"),
    # What a camera captured before a time: its own retention.
    Index(None, "camera_row", "capture_time"),
    Index(None, "gallery_row", "crop_row"),
    sqlite_autoincrement=True,
)

embeddings = Table(
    "embeddings",
    metadata,
    Column("crop_row", RowId, ForeignKey("crops.crop_row", ondelete="CASCADE"), primary_key=True),
    Column("model_row", RowId, ForeignKey("models.model_row"), primary_key=True),
    # Little-endian float32, unit L2 norm.
    Column("vector", LargeBinary, nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", SmallInteger, nullable=False),
    Column("crop_id", Uuid16, nullable=True),
    Column("camera_row", RowId, nullable=True),
    # What was captured before it is gone, of a change that dropped crops by age.
    Column("cut_off", Micros, nullable=True),
    Column("create_time", Micros, nullable=False),
)

# Processes that serve this catalog. All times are the database's.
replicas = Table(
    "replicas",
    metadata,
    Column("replica_id", Uuid16, primary_key=True),
    Column("name", String(200), nullable=False),
    Column("start_time", Micros, nullable=False),
    Column("heartbeat_time", Micros, nullable=False),
    # What the replica's code was made for; None of code from before it was told.
    Column("schema_revision", String(32)),
)

# Up to which change a replica's indexes are.
replica_positions = Table(
    "replica_positions",
    metadata,
    Column(
        "replica_id",
        Uuid16,
        ForeignKey("replicas.replica_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), primary_key=True),
    Column("position", BigInteger, nullable=False),
)

# Images of deleted crops that may still lie in the blob store.
blob_removals = Table(
    "blob_removals",
    metadata,
    Column("blob_key", String(255), primary_key=True),
    Column("create_time", Micros, nullable=False),
)

# What was registered beside a row of `models`; a model that was only ever served has none.
model_bundles = Table(
    "model_bundles",
    metadata,
    Column("model_row", RowId, ForeignKey("models.model_row"), primary_key=True),
    Column("run_row", RowId, ForeignKey("adaptation_runs.run_row"), nullable=True),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("parent_version", String(128), nullable=False),
    Column("method", String(64), nullable=False),
    Column("gate_outcome", String(16), nullable=False),
    Column("gate_score", Float, nullable=False),
    Column("gate_reasons", JSON, nullable=False),
    Column("gate_report", JSON, nullable=False),
)

# How far a shadow has got with the crops that were there when it was staged; those after it get its
# vector with the others.
model_fillings = Table(
    "model_fillings",
    metadata,
    Column("model_row", RowId, ForeignKey("models.model_row"), primary_key=True),
    Column("source", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    # What is left to look at: last_row < crop_row <= until_row.
    Column("last_row", BigInteger, nullable=False),
    Column("until_row", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),
    # The process that fills, while expire_time has not passed.
    Column("holder", Uuid16, nullable=True),
    Column("expire_time", Micros, nullable=True),
    Column("start_time", Micros, nullable=False),
    Column("update_time", Micros, nullable=False),
    Column("complete_time", Micros, nullable=True),
)

# Crops that could be given no vector of a model.
model_failures = Table(
    "model_failures",
    metadata,
    Column("model_row", RowId, ForeignKey("models.model_row"), primary_key=True),
    Column("crop_row", RowId, ForeignKey("crops.crop_row", ondelete="CASCADE"), primary_key=True),
    Column("reason", String(64), nullable=False),
    Index(None, "crop_row"),
)

# Retired models whose vectors are being deleted, and up to which crop that has come.
model_removals = Table(
    "model_removals",
    metadata,
    Column("model_row", RowId, ForeignKey("models.model_row"), primary_key=True),
    Column("last_row", BigInteger, nullable=False),
)

# Who changed the state of a model, when and why.
model_events = Table(
    "model_events",
    metadata,
    Column("event_row", RowId, primary_key=True),
    Column("gallery_row", RowId, ForeignKey("galleries.gallery_row"), nullable=False),
    Column("model_row", RowId, ForeignKey("models.model_row"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("actor", String(16), nullable=False),
    Column("reason", String(500), nullable=False),
    Column("create_time", Micros, nullable=False),
    Index(None, "gallery_row", "event_row"),
    sqlite_autoincrement=True,
)
