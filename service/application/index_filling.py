"""An index filled at start: from its folder as far as that holds, else from the catalog."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection

from service.application.following import BLOCK, follow, reread
from service.catalog import log_reads, vector_reads
from service.catalog.records import GalleryRecord
from service.domain.ports import GalleryIndex
from service.gallery.index import SegmentedIndex
from service.gallery.index_folder import IndexFolder, Restored, UnusableError
from service.telemetry import INDEX_FILLED

__all__ = ["Filled", "differences", "fill"]

logger = logging.getLogger(__name__)

Source = Literal[
    "catalog", "files", "files_in_part", "damaged", "newer_format", "other_index", "other_log"
]


@dataclass(frozen=True, slots=True)
class Filled:
    """How an index was filled.

    Args:
        source: From its files; from the files that were sound; or from the catalog, because there
            were none (``catalog``) or for the reason given.
        from_files: Rows that came from files.
        behind: Crops that the files lacked, or had and should not.
    """

    source: Source
    from_files: int
    behind: int


def fill(
    connection: Connection,
    record: GalleryRecord,
    index: SegmentedIndex,
    folder: IndexFolder,
    *,
    segment_rows: int,
) -> Filled:
    """Fill an empty index with exactly the crops that this connection sees.

    Raises:
        FailedPrecondition: the catalog is damaged.
        Unavailable: it does not answer.
    """
    source, restored = _restored(connection, record, folder, segment_rows)
    target = record, index
    if restored is None:
        for block in vector_reads.vector_blocks(connection, record, block=BLOCK):
            index.add(block)
        rows, behind = 0, len(index)
    else:
        for segment in restored.segments:
            index.adopt(segment)
        rows = len(index)
        after = restored.mark.position
        _, behind = follow(connection, record.gallery_row, [target], after=after)
        if restored.damaged:
            lacking, extra = differences(connection, record, index)
            index.remove(extra)
            reread(connection, target, lacking)
            behind += len(lacking) + len(extra)
    INDEX_FILLED.labels(source).inc()
    return Filled(source, rows, behind)


def differences(
    connection: Connection, record: GalleryRecord, index: GalleryIndex
) -> tuple[list[UUID], list[UUID]]:
    """Crops that the catalog has and the index lacks, and those that only the index has."""
    stored = set(map(tuple, vector_reads.vector_ids(connection, record).tolist()))
    held = set(map(tuple, index.ids().tolist()))
    return [_uuid(pair) for pair in sorted(stored - held)], [
        _uuid(pair) for pair in sorted(held - stored)
    ]


def _restored(
    connection: Connection, record: GalleryRecord, folder: IndexFolder, segment_rows: int
) -> tuple[Source, Restored | None]:
    try:
        restored = folder.read(segment_rows=segment_rows)
    except UnusableError as error:
        if error.reason == "none":
            return "catalog", None
        logger.warning(
            "gallery %s: %s; the index is built again from the catalog", record.name, error
        )
        return error.reason, None
    mark = restored.mark
    if log_reads.entry_at(connection, record.gallery_row, mark.position) != mark.entry:
        logger.warning(
            "gallery %s: the index files in %s are up to change %d of another log than the "
            "catalog's; the index is built again from the catalog",
            record.name,
            folder.path,
            mark.position,
        )
        return "other_log", None
    for name, what in restored.damaged.items():
        logger.warning(
            "gallery %s: index file %s %s; its crops are read from the catalog",
            record.name,
            folder.path / name,
            what,
        )
    return ("files_in_part" if restored.damaged else "files"), restored


def _uuid(pair: tuple[int, int]) -> UUID:
    return UUID(int=pair[0] << 64 | pair[1])
