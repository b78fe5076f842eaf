"""Images of deleted crops that still lie in the blob store, because a process died or the store
refused to remove them: tried again at a start and at intervals until they are gone.

Any process may do it, and several at once: an image that is gone is removed as well. What is being
ingested, or belongs to a crop, is left alone: a commit whose answer was lost may have been deleted
by others and be made again, with the same image.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from datetime import datetime
from functools import partial

from service.application.blob_sweep import BlobsInFlight
from service.application.repeating import Repeating
from service.catalog import crop_reads, crop_writes
from service.catalog.store import Catalog
from service.domain.identifier import image_of_key
from service.domain.ports import BlobStore, Clock
from service.telemetry import IMAGE_REMOVAL_OVERDUE

__all__ = ["ImageRemoval"]

logger = logging.getLogger(__name__)

BLOCK = 1000
# After so many refusals in one pass the next goes on behind them: a store that is away is not asked
# a million times, and a few images that are locked do not keep the others.
PATIENCE = 100


class ImageRemoval:
    """``remove`` before anything is served, then ``start`` on the event loop, ``close`` at the end.

    Args:
        catalog: Names the images that wait.
        blobs: Where they are.
        clock: Says for how long they wait.
        in_flight: Those being ingested by this process.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        blobs: BlobStore,
        clock: Clock,
        in_flight: BlobsInFlight | None = None,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._clock = clock
        self._in_flight = in_flight or BlobsInFlight()
        self._stopping = threading.Event()
        self._passed = ""
        self._oldest: datetime | None = None
        self._repeating: list[Repeating] = []

    def start(self, threads: Executor, *, interval: float, refresh: float) -> None:
        """Try every ``interval`` seconds on one of the threads, and look at what waits every
        ``refresh`` seconds.
        """

        async def remove() -> None:
            await asyncio.get_running_loop().run_in_executor(threads, self.remove)
            await self.look()

        self._repeating = [
            Repeating("removing images of deleted crops", remove, interval=interval, at_once=False),
            Repeating("looking at images that wait for removal", self.look, interval=refresh),
        ]

    async def close(self) -> None:
        """End it after the image that is being removed."""
        self._stopping.set()
        for repeating in self._repeating:
            await repeating.close()

    def remove(self, *, patience: int = PATIENCE) -> int:
        """Try every image that waits, or until the store refused so many; returns how many are
        gone. Blocking. The next time goes on where this one gave up.

        Raises:
            Unavailable: the catalog does not answer.
        """
        removed = refused = 0
        while refused < patience and not self._stopping.is_set():
            read = partial(crop_reads.pending_blob_removals, after=self._passed, limit=BLOCK)
            keys = self._catalog.read_now(read)
            if not keys:
                self._passed = ""
                break
            free, owned = self._sorted(keys)
            gone, kept = self._delete(free, patience - refused)
            if forgotten := gone + owned:
                forget = partial(crop_writes.forget_blob_removals, keys=forgotten)
                self._catalog.writer.change(forget).result()
            tried = len(gone) + len(kept)
            self._passed = keys[-1] if tried == len(free) else free[tried - 1] if tried else ""
            removed += len(gone)
            refused += len(kept)
        if removed:
            logger.warning("blob store: removed %d images of deleted crops that waited", removed)
        return removed

    async def look(self) -> None:
        """See since when the oldest image waits.

        Raises:
            Unavailable: the catalog does not answer; what was seen before stays.
        """
        self._oldest = await self._catalog.read(crop_reads.oldest_blob_removal)

    def show(self) -> None:
        """Bring the gauge up to date; it grows on while the catalog cannot be read."""
        age = 0.0 if self._oldest is None else (self._clock.now() - self._oldest).total_seconds()
        IMAGE_REMOVAL_OVERDUE.set(max(0.0, age))

    def _sorted(self, keys: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those that belong to nothing, and those that belong to a crop again. As in a sweep the
        flight is looked at first: an image enters the catalog before it leaves the flight.
        """
        ids = {key: blob_id for key in keys if (blob_id := image_of_key(key)) is not None}
        flying = self._in_flight.among(set(ids.values()))
        stored = self._catalog.read_now(crop_reads.stored_blobs, set(ids.values()))
        free = [key for key in keys if ids.get(key) not in flying | stored]
        return free, [key for key in keys if ids.get(key) in stored - flying]

    def _delete(self, keys: Sequence[str], patience: int) -> tuple[list[str], list[str]]:
        """Those that are gone, and those that the store refused; both of the first that were
        tried.
        """
        try:
            self._blobs.delete_all(keys)
        except OSError:
            logger.debug("blob store: %d images are removed one by one", len(keys), exc_info=True)
        else:
            return list(keys), []
        gone, kept, why = list[str](), list[str](), ""
        for key in keys:
            if len(kept) >= patience or self._stopping.is_set():
                break
            try:
                self._blobs.delete(key)
            except OSError as error:
                kept.append(key)
                why = f"{type(error).__name__}: {error}"
            else:
                gone.append(key)
        if kept:
            logger.error(
                "blob store: %d images of deleted crops could not be removed, and are tried "
                "again every retention.interval_seconds (%s)",
                len(kept),
                why,
            )
        return gone, kept
