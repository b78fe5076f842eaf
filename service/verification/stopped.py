"""Verification of a service that is stopped: what is compared are its index files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from resight.errors import FailedPrecondition
from service.application.data_directory import DataDirectory
from service.application.following import follow
from service.application.index_keeper import index_folder
from service.blobs import open_blob_store
from service.catalog import gallery_reads, lifecycle_reads, log_reads, schema, vector_reads
from service.catalog.engine import open_engine, unavailable
from service.catalog.records import GalleryRecord
from service.clock import SystemClock
from service.gallery.index import SegmentedIndex
from service.gallery.index_folder import IndexFolder, LogMark, UnusableError
from service.settings import ServiceSettings
from service.snapshot.target_database import sqlite_file
from service.verification.findings import Findings, Report, Told
from service.verification.gallery import compare, compare_warm
from service.verification.images import ImageCheck

__all__ = ["verify_stopped"]

BLOCK = 4096


def verify_stopped(
    settings: ServiceSettings,
    *,
    sample: int | None,
    repair: bool,
    told: Told = lambda *_: None,
) -> list[Report]:
    """Compare catalog, index files and images of every gallery.

    Args:
        settings: Those of the service.
        sample: How many images of each gallery are read; None reads all.
        repair: Write index files anew that are wrong.
        told: Progress.

    Raises:
        FailedPrecondition: the service is running, there is no catalog, or its schema is not this
            version's.
        Unavailable: the database or the blob store does not answer.
    """
    catalog = sqlite_file(settings.resolved_database_url())
    if catalog is not None and not catalog.is_file():
        raise FailedPrecondition(
            f"there is no catalog at {catalog}; name the service's data directory with --data",
            field="data_dir",
            reason="CATALOG_MISSING",
        )
    directory = DataDirectory(settings.data_dir)
    try:
        with _connected(settings) as connection:
            records = gallery_reads.all_galleries(connection)
            return [
                _verify(connection, settings, record, sample, repair, told) for record in records
            ]
    finally:
        directory.close()


def _verify(
    connection: Connection,
    settings: ServiceSettings,
    record: GalleryRecord,
    sample: int | None,
    repair: bool,
    told: Told,
) -> Report:
    findings = Findings()
    folder = index_folder(settings.data_dir / "index", record)
    index = _read(connection, record, folder, settings, findings)
    compared = compare(
        connection, record, None if index is None else index.snapshot, findings=findings, told=told
    )
    wrong = bool(compared.wrong)
    warm = lifecycle_reads.fed_models(connection, record.gallery_row).all[1:]
    for other in warm:
        files = index_folder(settings.data_dir / "index", other)
        held = _read(connection, other, files, settings, findings)
        if held is not None:
            wrong |= bool(compare_warm(connection, other, held.snapshot, findings))
    images = ImageCheck(
        record.name,
        record.gallery_row,
        open_blob_store(settings.resolved_blob_url(), beside=True),
        now=lambda read: read(connection),
        expected=settings.privacy.store_images,
        deleted_before=SystemClock().now() - timedelta(seconds=settings.replicas.sweep_seconds),
        told=told,
    )
    images.compare(findings, sample=sample)
    report = replace(
        compared.report, images=len(images), images_read=images.read, findings=findings.all()
    )
    unsound = any(finding.kind == "INDEX_FILES_DAMAGED" for finding in findings.all())
    if repair and (wrong or unsound):
        made = _rewrite(connection, record, folder, settings)
        for other in warm:
            files = index_folder(settings.data_dir / "index", other)
            _rewrite(connection, other, files, settings)
        return replace(report, repaired=made)
    return report


def _read(
    connection: Connection,
    record: GalleryRecord,
    folder: IndexFolder,
    settings: ServiceSettings,
    findings: Findings,
) -> SegmentedIndex | None:
    """The index as the next start would have it from its files alone; None when it would not use
    them.
    """
    try:
        restored = folder.read(segment_rows=settings.index.segment_rows)
    except UnusableError as error:
        if error.reason != "none":
            findings.add("INDEX_FILES_DAMAGED", [str(error)])
        return None
    mark = restored.mark
    if log_reads.entry_at(connection, record.gallery_row, mark.position) != mark.entry:
        findings.add("INDEX_FILES_DAMAGED", [f"{folder.path} is of another log"])
        return None
    findings.add(
        "INDEX_FILES_DAMAGED",
        [f"{folder.path / name} {what}" for name, what in restored.damaged.items()],
    )
    if restored.damaged:
        return None
    index = SegmentedIndex(record.dimension, segment_rows=settings.index.segment_rows)
    for segment in restored.segments:
        index.adopt(segment)
    follow(connection, record.gallery_row, [(record, index)], after=mark.position)
    return index


def _rewrite(
    connection: Connection, record: GalleryRecord, folder: IndexFolder, settings: ServiceSettings
) -> int:
    """Make the files what the catalog says; returns how many rows they have."""
    index = SegmentedIndex(record.dimension, segment_rows=settings.index.segment_rows)
    for block in vector_reads.vector_blocks(connection, record, block=BLOCK):
        index.add(block)
    position = log_reads.newest_position(connection, record.gallery_row)
    entry = log_reads.entry_at(connection, record.gallery_row, position)
    folder.clear()
    if entry is not None:
        folder.write(index.snapshot, LogMark(position, entry))
    return len(index)


@contextmanager
def _connected(settings: ServiceSettings) -> Iterator[Connection]:
    url = settings.resolved_database_url()
    engine = open_engine(url, pool_size=1, writer=False)
    try:
        schema.prepare(engine, auto_upgrade=False)
        with engine.connect() as connection:
            yield connection
    except SQLAlchemyError as error:
        raise unavailable(error) from error
    finally:
        engine.dispose()
