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
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
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
# What a process that ends waits for.
AT_A_TIME = 50
# After so many refusals in a row, or when they took so long, a pass gives up: a store that is away
# is not asked a million times.
PATIENCE = 100
PATIENCE_SECONDS = 10.0


@dataclass(slots=True)
class _Pass:
    """What has come of one pass so far; ``in_row`` and ``seconds`` count since the last success."""

    patience: int
    removed: int = 0
    refused: int = 0
    in_row: int = 0
    seconds: float = 0.0
    why: str = ""
    several_failed: bool = False

    @property
    def given_up(self) -> bool:
        return self.in_row >= self.patience or self.seconds >= PATIENCE_SECONDS

    def succeed(self, images: int) -> None:
        self.removed += images
        self.in_row, self.seconds = 0, 0.0

    def fail(self, error: OSError, seconds: float) -> None:
        self.refused += 1
        self.in_row += 1
        self.seconds += seconds
        self.why = _said(error)


class ImageRemoval:
    """``remove`` before anything is served, then ``start`` on the event loop, ``close`` at the end.

    Args:
        catalog: Names the images that wait.
        blobs: Where they are.
        clock: Says for how long they wait.
        in_flight: Those being ingested by this process.
        elapsed: Seconds that do not jump.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        blobs: BlobStore,
        clock: Clock,
        in_flight: BlobsInFlight | None = None,
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._clock = clock
        self._in_flight = in_flight or BlobsInFlight()
        self._stopping = threading.Event()
        self._elapsed = elapsed
        # The folders of the store (galleries) where a pass gave up, and the image it came to.
        self._given_up: dict[str, str] = {}
        self._refused = False
        self._oldest: datetime | None = None
        self._repeating: list[Repeating] = []

    @property
    def was_refused(self) -> bool:
        """Whether the store refused an image in the last pass."""
        return self._refused

    def start(
        self, threads: Executor, *, interval: float, refresh: float, at_once: bool = False
    ) -> None:
        """Try every ``interval`` seconds on one of the threads, the first time now or after one,
        and look at what waits every ``refresh`` seconds.
        """

        async def remove() -> None:
            await asyncio.get_running_loop().run_in_executor(threads, self.remove)
            await self.look()

        self._repeating = [
            Repeating(
                "removing images of deleted crops", remove, interval=interval, at_once=at_once
            ),
            Repeating("looking at images that wait for removal", self.look, interval=refresh),
        ]

    async def close(self) -> None:
        """End it after the few images that are being removed."""
        self._stopping.set()
        for repeating in self._repeating:
            await repeating.close()

    def remove(self, *, patience: int = PATIENCE) -> int:
        """Try every image that waits, or until the store refused so many in a row; returns how
        many are gone. Blocking. A folder where a pass gave up comes last in the next, from there
        on: what is locked in one keeps no other back.

        Raises:
            Unavailable: the catalog does not answer.
        """
        this = _Pass(patience)
        try:
            self._walk(this, without=list(self._given_up))
            for folder in list(self._given_up):
                if this.given_up or self._stopping.is_set():
                    break
                self._walk(this, after=self._given_up.pop(folder), folder=folder)
        finally:
            self._refused = this.refused > 0
            _tell(this)
        return this.removed

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

    def _walk(
        self,
        this: _Pass,
        *,
        after: str = "",
        folder: str | None = None,
        without: Sequence[str] = (),
    ) -> None:
        """Try those behind an image, of one folder or of all but some."""
        pending = partial(
            crop_reads.pending_blob_removals, limit=BLOCK, folder=folder, without=without
        )
        while not self._stopping.is_set():
            keys = self._catalog.read_now(partial(pending, after=after))
            if not keys:
                return
            free, owned = self._sorted(keys)
            gone, last = self._delete(free, this)
            if forgotten := gone + owned:
                forget = partial(crop_writes.forget_blob_removals, keys=forgotten)
                self._catalog.writer.change(forget).result()
            if this.given_up:
                self._given_up[last.partition("/")[0]] = last
                return
            after = keys[-1]

    def _delete(self, keys: Sequence[str], this: _Pass) -> tuple[list[str], str]:
        """Those that are gone, and the last that was tried."""
        gone, last = list[str](), ""
        for start in range(0, len(keys), AT_A_TIME):
            some = keys[start : start + AT_A_TIME]
            if this.given_up or self._stopping.is_set():
                break
            try:
                self._blobs.delete_all(some)
            except OSError as error:
                if not this.several_failed:
                    logger.warning(
                        "blob store: images of deleted crops are removed one by one, several at a "
                        "time failed (%s)",
                        _said(error),
                    )
                this.several_failed = True
                removed, last = self._delete_each(some, this)
                gone += removed
            else:
                this.succeed(len(some))
                gone += some
                last = some[-1]
        return gone, last

    def _delete_each(self, keys: Sequence[str], this: _Pass) -> tuple[list[str], str]:
        gone, last = list[str](), ""
        for key in keys:
            if this.given_up or self._stopping.is_set():
                break
            last, began = key, self._elapsed()
            try:
                self._blobs.delete(key)
            except OSError as error:
                this.fail(error, self._elapsed() - began)
            else:
                this.succeed(1)
                gone.append(key)
        return gone, last


def _tell(done: _Pass) -> None:
    if done.removed:
        logger.warning("blob store: removed %d images of deleted crops that waited", done.removed)
    if done.refused:
        logger.error(
            "blob store: %d images of deleted crops could not be removed, and are tried again "
            "every retention.interval_seconds (%s)",
            done.refused,
            done.why,
        )


def _said(error: OSError) -> str:
    return f"{type(error).__name__}: {error}"
