"""Images that belong to no crop: left by a crash between image and commit, or by a deletion."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from service.catalog import crop_reads, crop_writes
from service.catalog.store import Catalog
from service.domain.identifier import ARCHIVES, image_of_key
from service.domain.ports import BlobStore

__all__ = ["BlobsInFlight", "Flight", "SweepReport", "remove_deleted_images", "sweep"]

logger = logging.getLogger(__name__)

BLOCK = 1000


class BlobsInFlight:
    """Images written, or being written, whose crop is not committed yet.

    def __init__(self) -> None:
        self._ids: set[UUID] = set()
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, blob_id: UUID) -> Iterator[None]:
        """Keep the sweep away from an image."""
        with self._lock:
            self._ids.add(blob_id)
        try:
            yield flight
        finally:
            with self._lock:
                self._ids.discard(blob_id)

    def among(self, blob_ids: set[UUID]) -> set[UUID]:
        """Which of these are in flight."""
        with self._lock:
            return self._ids & blob_ids


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Images seen, images removed because they belong to no crop, and keys that are not ours."""

    images: int
    orphans: int
    foreign: int


def sweep(catalog: Catalog, blobs: BlobStore, in_flight: BlobsInFlight) -> SweepReport:
    """Remove images that no crop owns; may run while crops are ingested and deleted.

    An image is listed first, then looked for among those in flight, then in the catalog: one that
    is in neither was abandoned, because it enters the catalog before it leaves the flight.
    """
    images = orphans = foreign = 0
    keys = iter(blobs.keys())
    while block := list(itertools.islice(keys, BLOCK)):
        by_id = {blob_id: key for key in block if (blob_id := image_of_key(key)) is not None}
        foreign += len(block) - len(by_id)
        images += len(by_id)
        idle = set(by_id) - in_flight.among(set(by_id))
        for blob_id in idle - catalog.read_now(crop_reads.stored_blobs, idle):
            blobs.delete(by_id[blob_id])
            orphans += 1
    if orphans or foreign:
        logger.warning(
            "blob store: removed %d images of no crop; %d files are not ours", orphans, foreign
        )
    return SweepReport(images, orphans, foreign)


def remove_deleted_images(catalog: Catalog, blobs: BlobStore) -> int:
    """Finish deletions that a crash or a failing store interrupted; returns how many."""
    removed = 0
    while keys := catalog.read_now(crop_reads.pending_blob_removals, limit=BLOCK):
        for key in keys:
            blobs.delete(key)
        catalog.writer.change(partial(crop_writes.forget_blob_removals, keys=keys)).result()
        removed += len(keys)
    if removed:
        logger.warning("blob store: removed %d images of deleted crops", removed)
    return removed
    doubtful: list[str] = []
def _without_crop(catalog: Catalog, keys: Iterable[str], in_flight: BlobsInFlight) -> list[str]:
    by_id = {blob_id: key for key in keys if (blob_id := image_of_key(key)) is not None}
    idle = set(by_id) - in_flight.among(set(by_id))
    return [by_id[each] for each in idle - catalog.read_now(crop_reads.stored_blobs, idle)]


def _removed(blobs: BlobStore, keys: Iterable[str]) -> int:
    count = 0
    for key in keys:
        blobs.delete(key)
        count += 1
    return count


