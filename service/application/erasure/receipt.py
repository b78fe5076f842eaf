"""The receipt of an erasure: what was removed where, what may still hold it, and what had learnt
from it; signed.

    signature = Ed25519(canonical JSON of "receipt")

canonical: keys sorted, no blanks, UTF-8 as it is (``ensure_ascii`` off). Crops by id alone; neither
images nor vectors.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from resight import __version__
from service.application.erasure.removal import Evidence
from service.catalog import erasure_evidence, erasure_reads
from service.catalog.erasure_evidence import ModelLine, UsedBy
from service.domain.adaptation import RunState
from service.domain.erasure import CropOutcome, Erasure
from service.settings import ServiceSettings
from service.signing import SigningKey

__all__ = ["MAX_IDS", "Places", "facts", "signed"]

FORMAT = "resight.erasure-receipt/1"
# More ids than this are told by their digest alone; the list is kept by the service.
MAX_IDS = 100_000

_SNAPSHOTS = (
    "snapshots taken before hold these crops until they are deleted; whoever restores one has the "
    "crops removed again before anything is served, because the erasure ledger names them: keep "
    "its files at least as long as the oldest such snapshot"
)
_FREE_PAGES = (
    "free pages of the database and its write-ahead log may hold the bytes of deleted rows until "
    "they are used again (SQLite: VACUUM; PostgreSQL: VACUUM), and so may backups of the database"
)
_MILVUS = "segments of Milvus hold deleted vectors until it compacts them; no search finds them"
_REPLICAS = (
    "a replica named as pending shows these crops no longer, but compares with their vectors until "
    "it has followed the log, which it does before it serves again"
)
_INDEX_FILES = (
    "index files of other replicas may hold vectors until they are written again "
    "(index.changes_per_write changes, or at the replica's end)"
)
_ADAPTATION = (
    "a machine that runs nights holds their crops while a night runs; a running one drops erased "
    "crops before it trains, and the next one whatever a killed one left, reports that show erased "
    "crops included; outputs of `resight adapt run` that somebody keeps are theirs to delete"
)


@dataclass(frozen=True, slots=True)
class Places:
    """Where this service keeps things, as a receipt names them.

    Args:
        database: Kind of database.
        index: Backend of the index.
        images_stored: Whether images of crops are stored.
        ledger: File of this process's erasure ledger.
        replica: Name of this process.
    """

    database: str
    index: str
    images_stored: bool
    ledger: str
    replica: str

    @classmethod
    def of(cls, settings: ServiceSettings, *, ledger: Path, replica: str) -> Self:
        """As these settings say."""
        return cls(
            database=make_url(settings.resolved_database_url()).get_backend_name(),
            index=settings.index.backend,
            images_stored=settings.privacy.store_images,
            ledger=ledger.name,
            replica=replica,
        )


def facts(
    connection: Connection, erasure: Erasure, evidence: Evidence, places: Places, *, now: datetime
) -> dict[str, Any]:
    """Everything that a receipt says, as JSON values; reads the list and what had used it."""
    removed = _ids(connection, erasure, CropOutcome.REMOVED)
    absent = _ids(connection, erasure, CropOutcome.ABSENT)
    lines = erasure_evidence.models_of(connection, erasure.gallery_row)
    runs = erasure_evidence.used_by(connection, erasure)
    open_runs = erasure_evidence.under_way(connection, erasure.gallery_row)
    return {
        "format": FORMAT,
        "erasure_id": str(erasure.erasure_id),
        "gallery": erasure.gallery,
        "subject": json.loads(erasure.subject),
        "reason": erasure.reason,
        "planned_by": erasure.principal,
        "confirmed_by": erasure.confirmer,
        "create_time": erasure.create_time.isoformat(),
        "confirm_time": erasure.confirm_time.isoformat() if erasure.confirm_time else None,
        "complete_time": now.isoformat(),
        "crops": {
            "confirmed": erasure.listed,
            "kept": erasure.kept,
            "removed": _told(removed),
            "absent": _told(absent),
            "more_matched": erasure.more,
        },
        "removed_from": {
            "catalog": {"database": places.database, "rows": len(removed)},
            "vectors": _vectors(erasure.vectors, lines),
            "images": {"stored": places.images_stored, "removed": len(removed)},
            "index": {
                "backend": places.index,
                "position": evidence.position,
                "confirmed": [each.name for each in evidence.replicas if each.applied],
                "pending": [each.name for each in evidence.replicas if not each.applied],
            },
            "index_files": {
                "replica": places.replica,
                "rewritten": not evidence.index_files,
                "message": evidence.index_files,
            },
        },
        "ledger": {"file": places.ledger, "crops": len(removed) + len(absent)},
        "may_still_hold": _holders(evidence, places),
        "training": _training(runs, open_runs, lines),
        "software": f"resight {__version__}",
    }


def signed(told: Mapping[str, Any], key: SigningKey) -> str:
    """The receipt as it is stored and given out: what it says, and who signed that."""
    signature = key.sign(canonical(told))
    return json.dumps(
        {
            "receipt": told,
            "signature": {
                "algorithm": "Ed25519",
                "signer": key.signer,
                "value": base64.b64encode(signature).decode("ascii"),
                "public_key": key.public_pem,
            },
        },
        ensure_ascii=False,
        indent=1,
    )


def canonical(told: Mapping[str, Any]) -> bytes:
    """The bytes that are signed."""
    return json.dumps(told, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def _ids(connection: Connection, erasure: Erasure, outcome: CropOutcome) -> list[UUID]:
    blocks = erasure_reads.outcome_ids(connection, erasure.erasure_row, outcome)
    return [crop_id for block in blocks for crop_id, _ in block]


def _told(ids: Sequence[UUID]) -> dict[str, Any]:
    """Count, digest of the ids in lower-case hex, sorted, each with a line feed; and the ids."""
    texts = [str(each) for each in ids]
    digest = hashlib.sha256("".join(f"{text}\n" for text in sorted(texts)).encode()).hexdigest()
    told: dict[str, Any] = {"count": len(ids), "ids_sha256": digest}
    if len(ids) <= MAX_IDS:
        told["ids"] = sorted(texts)
    return told


def _vectors(counts: Mapping[str, int], lines: Iterable[ModelLine]) -> list[dict[str, Any]]:
    versions = {str(line.model_row): line.version for line in lines}
    return [
        {"model_version": versions.get(row, row), "vectors": count}
        for row, count in sorted(counts.items(), key=lambda item: int(item[0]))
    ]


def _holders(evidence: Evidence, places: Places) -> list[dict[str, str]]:
    held = [
        {"where": "snapshots", "until": _SNAPSHOTS},
        {"where": "database pages and backups", "until": _FREE_PAGES},
        {"where": "machines that run nights", "until": _ADAPTATION},
    ]
    if places.index == "milvus":
        held.append({"where": "Milvus", "until": _MILVUS})
    if len(evidence.replicas) > 1:
        held.append({"where": "index files of other replicas", "until": _INDEX_FILES})
    if any(not each.applied for each in evidence.replicas):
        held.append({"where": "pending replicas", "until": _REPLICAS})
    return held


def _training(
    runs: Sequence[UsedBy], open_runs: Sequence[UUID], lines: Sequence[ModelLine]
) -> dict[str, Any]:
    """Runs that used the crops, those under way, which may, and the models made by them or from
    such a model.
    """
    made = {run.model_version for run in runs if run.model_version}
    reached = set(made)
    while grown := {
        line.version
        for line in lines
        if line.parent_version in reached and line.version not in reached
    }:
        reached |= grown
    return {
        "runs": [
            {
                "run_id": str(run.run_id),
                "state": run.state,
                "end_time": run.end_time.isoformat() if run.end_time else None,
                "model_version": run.model_version,
                "new_crops": run.new_crops,
                "replay_crops": run.replay_crops,
            }
            for run in runs
        ],
        "under_way": [
            {"run_id": str(run_id), "state": RunState.RUNNING.value}
            for run_id in open_runs
            if run_id not in {run.run_id for run in runs}
        ],
        "models": [
            {
                "model_version": line.version,
                "state": line.state,
                "trained_on_erased_crops": line.version in made,
                "parent_version": line.parent_version,
            }
            for line in lines
            if line.version in reached
        ],
    }
