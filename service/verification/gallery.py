"""One gallery compared at one position of its log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import Connection

from service.catalog import check_reads, lifecycle_reads, log_reads
from service.catalog.check_reads import CheckedCrop
from service.catalog.records import GalleryRecord
from service.gallery.index import Snapshot
from service.verification.findings import Findings, Report, Told
from service.verification.index_rows import IndexRowTable
from service.verification.vectors import damaged_vectors

__all__ = ["Compared", "compare", "compare_warm"]

BLOCK = 2000


@dataclass(frozen=True, slots=True)
class Compared:
    """A report, and the crops whose rows in the index are to be made right."""

    report: Report
    wrong: Sequence[UUID]


def compare(
    connection: Connection,
    record: GalleryRecord,
    snapshot: Snapshot | None,
    *,
    findings: Findings,
    told: Told,
) -> Compared:
    """Compare a gallery's catalog and the index of its live model.

    Args:
        connection: Sees the state of the catalog that the index is up to.
        record: The gallery with its live model.
        snapshot: Of the live model's index; None when there is none to compare.
        findings: Takes what is wrong.
        told: Progress.

    Returns:
        A report that lacks the images, and the crops whose rows are wrong.
    """
    findings.add("LOG_GAP", check_reads.log_gaps(connection, record.gallery_row))
    findings.add("VECTOR_FOREIGN", check_reads.foreign_vectors(connection, record))
    fed = lifecycle_reads.fed_models(connection, record.gallery_row)
    beside = fed.previous if fed.dual else None
    table = None if snapshot is None else IndexRowTable(snapshot)
    wrong: list[UUID] = []
    crops = 0
    for block in check_reads.checked_crops(connection, record, block=BLOCK):
        crops += len(block)
        lacking = [crop.crop_id for crop in block if crop.vector is None]
        if beside is not None and lacking:
            # Served by the model before, as they are meant to be.
            held = check_reads.with_vector(connection, beside, lacking)
            lacking = [crop_id for crop_id in lacking if crop_id not in held]
        findings.add("VECTOR_MISSING", lacking)
        wrong += _check_block(table, block, record, findings)
        told("crops", len(block))
    if table is not None:
        wrong += _check_extra(table, findings)
    report = Report(
        gallery=record.name,
        model_version=record.model_version,
        position=log_reads.newest_position(connection, record.gallery_row),
        crops=crops,
        rows=None if table is None else len(table),
        images=0,
        images_read=0,
        findings=findings.all(),
    )
    return Compared(report, wrong)


def compare_warm(
    connection: Connection, record: GalleryRecord, snapshot: Snapshot, findings: Findings
) -> list[UUID]:
    """Compare the index of a model that is not live, which need not have every crop; returns the
    crops whose rows are wrong.
    """
    table = IndexRowTable(snapshot)
    wrong: list[UUID] = []
    for block in check_reads.checked_crops(connection, record, block=BLOCK):
        wrong += _check_block(table, block, record, findings)
    return wrong + _check_extra(table, findings)


def _check_block(
    table: IndexRowTable | None,
    block: Sequence[CheckedCrop],
    record: GalleryRecord,
    findings: Findings,
) -> list[UUID]:
    """The crops whose rows are wrong. Where the stored vector is damaged the row may be the only
    sound copy of it, and is left alone.
    """
    damaged = set(damaged_vectors(block, record.dimension))
    findings.add("VECTOR_DAMAGED", sorted(damaged))
    if table is None:
        return []
    missing, differing = table.compare(block)
    missing, differing = (
        [crop_id for crop_id in ids if crop_id not in damaged] for ids in (missing, differing)
    )
    findings.add("INDEX_ROW_MISSING", missing)
    findings.add("INDEX_ROW_DIFFERS", differing)
    return missing + differing


def _check_extra(table: IndexRowTable, findings: Findings) -> list[UUID]:
    extra = table.unseen()
    findings.add("INDEX_ROW_EXTRA", extra)
    return extra
