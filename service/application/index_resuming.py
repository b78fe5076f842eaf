"""An index that keeps its rows itself, brought up to date at start: Milvus's.

It knows the position of the log that it is up to, and follows from there. Any doubt (no mark, a
mark of another log, not as many rows as the catalog has vectors) means the catalog, from the
beginning.
"""

from __future__ import annotations

import logging

from sqlalchemy import Connection, func, select

from service.application.following import BLOCK, follow
from service.application.index_filling import Filled, Source
from service.catalog import log_reads, vector_reads
from service.catalog.models import embeddings
from service.catalog.records import GalleryRecord
from service.gallery.index_folder import LogMark
from service.milvus.index import MilvusIndex
from service.telemetry import INDEX_FILLED

__all__ = ["remembered", "resume"]

logger = logging.getLogger(__name__)


def resume(connection: Connection, record: GalleryRecord, index: MilvusIndex) -> Filled:
    """Make the index hold exactly the crops that this connection sees; nothing else may write to
    the gallery meanwhile.

    Returns:
        Source ``files`` when the rows that were there were kept, else why not.

    Raises:
        FailedPrecondition: the catalog is damaged.
        Unavailable: it or Milvus does not answer.
    """
    found = _followed(connection, record, index)
    if not isinstance(found, Filled):
        if found != "catalog":
            logger.warning(
                "gallery %s: the rows in Milvus are not those of the catalog (%s); the index is "
                "built again from the catalog",
                record.name,
                found,
            )
        index.clear()
        for block in vector_reads.vector_blocks(connection, record, block=BLOCK):
            index.add(block)
        found = Filled(found, 0, len(index))
    remembered(connection, record, index)
    INDEX_FILLED.labels(found.source).inc()
    return found


def remembered(connection: Connection, record: GalleryRecord, index: MilvusIndex) -> None:
    """Keep the newest position that this connection sees as the one that the index is up to."""
    position = log_reads.newest_position(connection, record.gallery_row)
    entry = log_reads.entry_at(connection, record.gallery_row, position)
    if entry is not None:
        index.remember(LogMark(position, entry))


def _followed(connection: Connection, record: GalleryRecord, index: MilvusIndex) -> Filled | Source:
    mark = index.mark()
    if mark is None:
        return "other_log" if len(index) else "catalog"
    if log_reads.entry_at(connection, record.gallery_row, mark.position) != mark.entry:
        return "other_log"
    rows = len(index)
    targets = [(record, index)]
    _, behind = follow(connection, record.gallery_row, targets, after=mark.position)
    stored = connection.execute(
        select(func.count()).where(embeddings.c.model_row == record.model_row)
    ).scalar_one()
    return Filled("files", rows, behind) if len(index) == stored else "damaged"
