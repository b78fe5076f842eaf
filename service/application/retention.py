"""Retention: crops that are kept no longer are dropped.

    cut-off of a camera = now - (its own retention_days, else `retention.days`)

A camera's own value replaces the service's, be it shorter or longer. What no camera keeps, captured
before the earliest of all cut-offs, goes by one entry in the log a batch, which says before which
capture time everything is gone; whoever follows the log drops the same, whole partitions at a time.
What a camera with a later cut-off has after that goes with one entry a crop. In batches, each a
short transaction; before a start serves anything, then at intervals. These crops are not in the
erasure ledger: a catalog that is restored is as old as ever, cameras' times included, and the next
start drops them again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from resight.errors import FailedPrecondition, ResightError
from service.adaptation_settings import RetentionSettings
from service.application.galleries import Galleries
from service.catalog import crop_writes, gallery_reads
from service.catalog.crop_deletions import drop_before, drop_of_cameras
from service.catalog.store import Catalog
from service.domain.ports import BlobStore, Clock
from service.telemetry import RETENTION_DROPPED, RETENTION_OVERDUE

__all__ = ["Retention"]

logger = logging.getLogger(__name__)

# More than a clock that is set, or a leap second, explains.
MAX_JUMP = timedelta(days=1)


def _uptime() -> float:
    """Seconds that pass while the machine sleeps, too, and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Before ``common`` nothing of a gallery is kept; ``cameras``, by their own retention in days,
    keep less than that.
    """

    common: datetime | None
    cameras: Mapping[float | None, datetime]


class Retention:
    """Drops what is too old.

    Args:
        catalog: Where crops are dropped.
        galleries: Those whose indexes follow.
        blobs: Where the images are.
        clock: Says how old a crop is.
        settings: How old it may be, where its camera does not say.
        elapsed: Seconds since any moment, to notice a clock that was set wrong.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        blobs: BlobStore,
        clock: Clock,
        settings: RetentionSettings,
        elapsed: Callable[[], float] = _uptime,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._blobs = blobs
        self._clock = clock
        self._settings = settings
        self._elapsed = elapsed
        self._began = clock.now(), elapsed()
        self._stopping = False
        self._wanted = asyncio.Event()
        # When the oldest crop of any camera has to be dropped, as far as is known.
        self._due: datetime | None = None
        # By gallery, until somebody is told.
        self._dropped: Counter[str] = Counter()
        self._told: Callable[[str, int], None] | None = None

    def drop_expired(self) -> int:
        """Drop every crop that is too old from catalog, indexes and blob store; returns how many.

        Blocking. Images that could not be removed wait for ``ImageRemoval``.

        Raises:
            FailedPrecondition: the clock has jumped ahead since this process began.
            Unavailable: the catalog does not answer.
        """
        now = self._clock.now()
        dropped = 0
        try:
            for gallery_row, name, _ in self._catalog.read_now(gallery_reads.positions):
                kept = self._catalog.read_now(self._kept, gallery_row, now=now)
                if kept.common is None and not kept.cameras:
                    continue
                self._refuse_jump(now)
                dropped += self._drop_gallery(gallery_row, name, kept)
        finally:
            self._due = self._catalog.read_now(self._next_due)
        return dropped

    async def keep(self, threads: Executor) -> None:
        """Drop what is too old, at intervals and when a camera's time was changed, until cancelled;
        failures are logged.
        """
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._settings.interval_seconds)
            self._wanted.clear()
            try:
                await loop.run_in_executor(threads, self.drop_expired)
                self._tell()
            except asyncio.CancelledError:
                self._stopping = True
                raise
            except ResightError as error:
                logger.error("retention: %s", error)
            except Exception:
                logger.exception("retention: crops that are too old could not be dropped")

    def tell(self, told: Callable[[str, int], None]) -> None:
        """Have somebody told what was dropped of which gallery, from the start on."""
        self._told = told
        self._tell()

    def _tell(self) -> None:
        if self._told is not None:
            dropped, self._dropped = self._dropped, Counter()
            for name, count in dropped.items():
                self._told(name, count)

    def soon(self) -> None:
        """Have ``keep`` look now."""
        self._wanted.set()

    def show(self) -> None:
        """Bring the gauge up to date: how long the oldest crop has been kept too long; it grows on
        while nothing can be dropped.
        """
        late = 0.0 if self._due is None else (self._clock.now() - self._due).total_seconds()
        RETENTION_OVERDUE.set(max(0.0, late))

    def _kept(self, connection: Connection, gallery_row: int, *, now: datetime) -> _Kept:
        """The cut-off that holds for all cameras, and later ones that hold for some."""
        cut_offs = {
            own: None if (days := self._days(own)) is None else now - timedelta(days=days)
            for own in gallery_reads.kept_days(connection, gallery_row)
        }
        known = [cut_off for cut_off in cut_offs.values() if cut_off is not None]
        common = min(known) if known and len(known) == len(cut_offs) else None
        later = {
            own: cut_off
            for own, cut_off in cut_offs.items()
            if cut_off is not None and (common is None or cut_off > common)
        }
        return _Kept(common, later)

    def _days(self, own: float | None) -> float | None:
        return self._settings.days if own is None else own

    def _next_due(self, connection: Connection) -> datetime | None:
        due: list[datetime] = []
        for gallery_row, _, _ in gallery_reads.positions(connection):
            for own, oldest in gallery_reads.kept_days(connection, gallery_row).items():
                days = self._days(own)
                if oldest is not None and days is not None:
                    due.append(oldest + timedelta(days=days))
        return min(due, default=None)

    def _drop_gallery(self, gallery_row: int, name: str, kept: _Kept) -> int:
        dropped, common = 0, kept.common
        if common is not None:

            def of_all(connection: Connection) -> list[str]:
                return drop_before(
                    connection,
                    gallery_row,
                    common,
                    gallery=name,
                    most=self._settings.batch_crops,
                    now=self._clock.now(),
                )

            dropped += self._drop(gallery_row, name, of_all)
        if kept.cameras:

            def of_some(connection: Connection) -> list[str]:
                return drop_of_cameras(
                    connection,
                    gallery_row,
                    kept.cameras,
                    gallery=name,
                    most=self._settings.batch_crops,
                    now=self._clock.now(),
                )

            dropped += self._drop(gallery_row, name, of_some)
        if dropped:
            self._dropped[name] += dropped
            logger.info("gallery %s: %d crops that are kept no longer dropped", name, dropped)
        return dropped

    def _drop(self, gallery_row: int, name: str, batch: Callable[[Connection], list[str]]) -> int:
        dropped = 0
        while not self._stopping and (keys := self._drop_batch(gallery_row, batch)):
            dropped += len(keys)
            RETENTION_DROPPED.labels(name).inc(len(keys))
            try:
                for key in keys:
                    self._blobs.delete(key)
            except OSError:
                logger.exception("retention: images of dropped crops could not be removed yet")
                continue
            forget = partial(crop_writes.forget_blob_removals, keys=keys)
            self._catalog.writer.change(forget).result()
        return dropped

    def _drop_batch(self, gallery_row: int, batch: Callable[[Connection], list[str]]) -> list[str]:
        def committed(keys: list[str]) -> None:
            for gallery in self._galleries.all():
                if keys and gallery.row == gallery_row:
                    gallery.follow()

        return self._catalog.writer.change(batch, committed=committed).result()

    def _refuse_jump(self, now: datetime) -> None:
        """A clock that runs years ahead would have everything dropped."""
        then, uptime = self._began
        passed = timedelta(seconds=self._elapsed() - uptime)
        if now - then > passed + MAX_JUMP:
            raise FailedPrecondition(
                f"the clock says {now.isoformat()}, {passed} after {then.isoformat()}: it was set "
                "wrong, so nothing is dropped; set it right, or start the service again when it is",
                field="retention.days",
                reason="CLOCK_JUMPED",
            )
