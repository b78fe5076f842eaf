"""The crops of a confirmed erasure removed, in batches that others' work goes between.

One transaction a batch, as when a single crop is deleted: rows, vectors of every model, the log,
the keys of images, the list, and just before its commit the erasure ledger. Then the indexes follow
and the images go. Whatever ends the process, the next one goes on after the last commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import ResightError, Unavailable
from service.application.gallery import Gallery
from service.application.index_keeper import IndexKeeper
from service.application.replication import Replication, Standpoint
from service.catalog import crop_writes, erasure_reads, erasure_removals, log_reads
from service.catalog.crop_reads import pending_among
from service.catalog.erasure_removals import Removed
from service.catalog.store import Catalog
from service.domain.erasure import CropOutcome, Erasure
from service.domain.identifier import image_key
from service.domain.ports import BlobStore, Clock
from service.erasure_ledger import Erasure as LedgerEntry
from service.erasure_ledger import ErasureLedger
from service.telemetry import ERASURE_CROPS_REMOVED

__all__ = ["Evidence", "Removal"]

logger = logging.getLogger(__name__)

# Images removed at a time: they share the flushes of their folders, of which there are 256. One of
# the threads that ingest uses, too, works at them.
IMAGES = 10_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found when the last crop had gone.

    Attributes:
        position: Of the log, up to which the indexes below are.
        replicas: Every replica that lives, and whether its index is.
        index_files: Why this process's index files still hold vectors; empty when they do not.
    """

    position: int
    replicas: Sequence[Standpoint]
    index_files: str


class Removal:
    """Removes; may be called again, and in several processes, for the same erasure."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        blobs: BlobStore,
        blob_threads: Executor,
        clock: Clock,
        ledger: ErasureLedger,
        replication: Replication,
        index_files: IndexKeeper,
        batch: int,
    ) -> None:
        self._catalog = catalog
        self._blobs = blobs
        self._blob_threads = blob_threads
        self._clock = clock
        self._ledger = ledger
        self._replication = replication
        self._index_files = index_files
        self._batch = batch
        self._stopping = False

    def stop(self) -> None:
        """Come to an end after the batch that is under way."""
        self._stopping = True

    async def carry_out(self, live: Gallery, erasure: Erasure) -> Evidence:
        """Remove everything that is left of the list.

        Raises:
            Unavailable: not now (catalog, ledger, blob store, index, or the service stops); what
                was removed stays removed.
        """
        place: int | None = 0
        waiting: list[str] = []
        while place is not None:
            if self._stopping:
                raise Unavailable(
                    "the service is stopping; the erasure goes on when it is started again",
                    reason="STOPPING",
                )
            done = await self._remove_rows(live, erasure, place)
            ERASURE_CROPS_REMOVED.inc(len(done.keys))
            place = done.place
            waiting += done.keys
            if len(waiting) >= IMAGES or place is None:
                try:
                    await self._remove_images(waiting)
                except OSError:
                    # The vectors of the others must not wait for a blob store that is away.
                    logger.exception("erasure %s: images not removed yet", erasure.erasure_id)
                waiting = []
        await self._remove_left_images(erasure)
        position = await self._catalog.read(log_reads.newest_position, live.row)
        replicas = await self._replication.standpoints(live, position)
        await self._require_gone(live, erasure)
        return Evidence(position, replicas, await self._clean_index_files(live))

    async def _remove_rows(self, live: Gallery, erasure: Erasure, after: int) -> Removed:
        def apply(connection: Connection) -> Removed:
            now = self._clock.now()

            def removing(crop_id: UUID, blob_id: UUID) -> None:
                entry = LedgerEntry(erasure.gallery, crop_id, blob_id, now)
                self._ledger.note(connection, entry)

            return erasure_removals.remove_next(
                connection, erasure, after=after, most=self._batch, now=now, removing=removing
            )

        def committed(done: Removed) -> None:
            if done.keys:
                live.follow()

        return await self._catalog.change(apply, committed=committed)

    async def _remove_images(self, keys: Sequence[str]) -> None:
        """Raises OSError."""
        loop = asyncio.get_running_loop()
        for start in range(0, len(keys), IMAGES):
            part = keys[start : start + IMAGES]
            await loop.run_in_executor(self._blob_threads, self._blobs.delete_all, part)
            await self._catalog.change(partial(crop_writes.forget_blob_removals, keys=part))

    async def _remove_left_images(self, erasure: Erasure) -> None:
        """Those whose rows were removed before a crash, or while the blob store was away."""
        for block in await self._ids(erasure):
            keys = [image_key(erasure.gallery, blob_id) for _, blob_id in block if blob_id]
            left = await self._catalog.read(pending_among, keys)
            try:
                await self._remove_images(left)
            except OSError as error:
                raise Unavailable(
                    f"the crops of erasure {erasure.erasure_id} are gone, but {len(left)} images "
                    "could not be removed from the blob store yet; it is tried again, and there is "
                    "no receipt before",
                    detail=f"{type(error).__name__}: {error}",
                    field="blob_url",
                    reason="IMAGE_REMOVAL_PENDING",
                ) from error

    async def _require_gone(self, live: Gallery, erasure: Erasure) -> None:
        """Look the erased crops up in this process's indexes.

        Raises:
            Unavailable: one still has them (reason ``INDEX_BEHIND``).
        """
        for block in await self._ids(erasure):
            ids = [crop_id for crop_id, _ in block]
            again = await self._catalog.read(erasure_reads.instances, live.row, ids)
            gone = [crop_id for crop_id in ids if crop_id not in again]
            for serving in live.models.fed:
                held, _ = await asyncio.to_thread(serving.index.vectors_of, gone)
                if len(held) and not live.behind:
                    raise Unavailable(
                        f"the index of model {serving.version} still has {len(held)} erased crops "
                        f"of gallery {live.name!r}; repair it (`resight gallery verify --repair`) "
                        "and confirm the erasure again",
                        reason="INDEX_BEHIND",
                    )

    async def _clean_index_files(self, live: Gallery) -> str:
        try:
            await self._index_files.write(live)
        except ResightError as error:
            logger.error("erasure: %s", error)
            return error.message
        return ""

    async def _ids(self, erasure: Erasure) -> list[list[tuple[UUID, UUID | None]]]:
        def read(connection: Connection) -> list[list[tuple[UUID, UUID | None]]]:
            found = erasure_reads.outcome_ids(connection, erasure.erasure_row, CropOutcome.REMOVED)
            return list(found)

        return await self._catalog.read(read)
