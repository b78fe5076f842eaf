"""Images that belong to no crop: left by a crash between image and commit, or by a deletion.

An image that another process has just written belongs to no crop yet. So a process that is not
alone removes only what has belonged to none twice, a long time apart; and one that others may have
held for dead in the meantime, or whose commit took so long, writes the image again before it
acknowledges the crop (``Flight.was_safe``).
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from service.application.fence import Fence, elapsed
from service.catalog import crop_reads
from service.catalog.store import Catalog
from service.domain.identifier import ARCHIVES, image_of_key
from service.domain.ports import BlobStore

__all__ = ["BlobsInFlight", "Flight", "SweepReport", "sweep"]

logger = logging.getLogger(__name__)

BLOCK = 1000


class Flight:
    """The way of one image from its writing to its crop's commit.

    Args:
        fence: Of this process.
        long: Seconds after which another process may have swept the image.
        clock: Seconds since any moment.
    """

    def __init__(self, fence: Fence, long: float, clock: Callable[[], float]) -> None:
        self._fence = fence
        self._term = fence.term
        self._long = long
        self._clock = clock
        self._begun = clock()

    @property
    def was_safe(self) -> bool:
        """Whether others knew all the time that an image may be in flight, and not for too long."""
        in_time = self._clock() - self._begun < self._long
        return in_time and self._fence.is_known_since(self._term)


class BlobsInFlight:
    """Images written, or being written, whose crop is not committed yet.

    Args:
        fence: Of this process.
        long: As Flight.
        clock: As Flight.
    """

    def __init__(
        self,
        fence: Fence | None = None,
        *,
        long: float = float("inf"),
        clock: Callable[[], float] = elapsed,
    ) -> None:
        self._fence = fence or Fence()
        self._long = long
        self._clock = clock
        self._ids: set[UUID] = set()
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, blob_id: UUID) -> Iterator[Flight]:
        """Keep the sweep of this process away from an image."""
        flight = Flight(self._fence, self._long, self._clock)
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


def sweep(
    catalog: Catalog,
    blobs: BlobStore,
    in_flight: BlobsInFlight,
    *,
    is_alone: Callable[[], bool] = lambda: True,
    settle: Callable[[], bool] = lambda: True,
) -> SweepReport:
    """Remove images that no crop owns; may run while crops are ingested and deleted.

    An image is listed first, then looked for among those in flight, then in the catalog: one that
    is in neither was abandoned, because it enters the catalog before it leaves the flight. Another
    process is registered while it has images in flight, so the catalog is looked at once more when
    none turned out to be there.

    Args:
        catalog: Names the images of crops.
        blobs: Where images are.
        in_flight: Those of this process.
        is_alone: Whether no other process serves the catalog.
        settle: Waits until whatever was in flight has landed; False when there is no time left.
    """
    images = orphans = foreign = 0
    doubtful: list[str] = []
    keys = iter(blobs.keys())
    while listed := list(itertools.islice(keys, BLOCK)):
        block = [key for key in listed if not key.startswith(ARCHIVES)]
        found = [key for key in block if image_of_key(key) is not None]
        foreign += len(block) - len(found)
        images += len(found)
        left = _without_crop(catalog, found, in_flight)
        if left and not is_alone():
            doubtful += left
        elif left:
            orphans += _removed(blobs, _without_crop(catalog, left, in_flight))
    if doubtful and settle():
        for start in range(0, len(doubtful), BLOCK):
            left = _without_crop(catalog, doubtful[start : start + BLOCK], in_flight)
            orphans += _removed(blobs, left)
    if orphans or foreign:
        logger.warning(
            "blob store: removed %d images of no crop; %d files are not ours", orphans, foreign
        )
    return SweepReport(images, orphans, foreign)


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
