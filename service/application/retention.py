"""Retention: crops captured longer ago than `retention.days` are dropped.

In batches, each a short transaction with one entry in the log that says before which capture time
everything is gone; whoever follows the log drops the same. Before a start serves anything, then at
intervals. These crops are not in the erasure ledger: a catalog that is restored is as old as ever,
and the next start drops them again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from resight.errors import FailedPrecondition, ResightError
from service.adaptation_settings import RetentionSettings
from service.application.galleries import Galleries
from service.catalog import crop_writes, gallery_reads
from service.catalog.crop_deletions import drop_before
from service.catalog.store import Catalog
from service.domain.ports import BlobStore, Clock
from service.telemetry import RETENTION_DROPPED

__all__ = ["Retention"]

logger = logging.getLogger(__name__)

# More than a clock that is set, or a leap second, explains.
MAX_JUMP = timedelta(days=1)


def _uptime() -> float:
    """Seconds that pass while the machine sleeps, too, and that nobody can set."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Retention:
    """Drops what is too old; does nothing when `retention.days` is not set.

    Args:
        catalog: Where crops are dropped.
        galleries: Those whose indexes follow.
        blobs: Where the images are.
        clock: Says how old a crop is.
        settings: How old it may be.
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

    def drop_expired(self) -> int:
        """Drop every crop that is too old from catalog, indexes and blob store; returns how many.

        Blocking. Images that could not be removed are removed at the next start.

        Raises:
            FailedPrecondition: the clock has jumped ahead since this process began.
            Unavailable: the catalog does not answer.
        """
        if self._settings.days is None:
            return 0
        now = self._clock.now()
        self._refuse_jump(now)
        cut_off = now - timedelta(days=self._settings.days)
        return sum(
            self._drop(gallery_row, name, cut_off)
            for gallery_row, name, _ in self._catalog.read_now(gallery_reads.positions)
        )

    async def keep(self, threads: Executor) -> None:
        """Drop what is too old, at intervals, until cancelled; failures are logged."""
        if self._settings.days is None:
            return
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._settings.interval_seconds)
            try:
                await loop.run_in_executor(threads, self.drop_expired)
            except asyncio.CancelledError:
                self._stopping = True
                raise
            except ResightError as error:
                logger.error("retention: %s", error)
            except Exception:
                logger.exception("retention: crops that are too old could not be dropped")

    def _drop(self, gallery_row: int, name: str, cut_off: datetime) -> int:
        dropped = 0
        while not self._stopping and (keys := self._drop_batch(gallery_row, name, cut_off)):
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
        if dropped:
            logger.info(
                "gallery %s: %d crops captured before %s dropped",
                name,
                dropped,
                cut_off.isoformat(),
            )
        return dropped

    def _drop_batch(self, gallery_row: int, name: str, cut_off: datetime) -> list[str]:
        def apply(connection: Connection) -> list[str]:
            return drop_before(
                connection,
                gallery_row,
                cut_off,
                gallery=name,
                most=self._settings.batch_crops,
                now=self._clock.now(),
            )

        def committed(keys: list[str]) -> None:
            for gallery in self._galleries.all():
                if keys and gallery.row == gallery_row:
                    gallery.follow()

        dropped = self._catalog.writer.change(apply, committed=committed)
        return dropped.result()

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
