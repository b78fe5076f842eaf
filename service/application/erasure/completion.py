"""A confirmed erasure brought to its end: everything removed, the receipt signed and stored."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import ResightError
from service.application.erasure.backlog import Backlog
from service.application.erasure.receipt import Places, facts, signed
from service.application.erasure.removal import Evidence, Removal
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.unbroken import Unbroken
from service.catalog import erasure_reads, erasures
from service.catalog.store import Catalog
from service.domain.erasure import Erasure
from service.domain.ports import Clock
from service.signing import SigningKey
from service.telemetry import ERASURES

__all__ = ["Completion"]

logger = logging.getLogger(__name__)


class Completion:
    """Completes erasures, for whoever confirms them and after an interruption.

    Args:
        catalog: Where they are kept.
        galleries: Those served.
        removal: Removes their crops.
        places: What a receipt names.
        signing_key: Signs receipts.
        unbroken: Keeps a removal going when its caller leaves.
        backlog: Told when one is done.
        clock: Gives times.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        removal: Removal,
        places: Places,
        signing_key: SigningKey,
        unbroken: Unbroken,
        backlog: Backlog,
        clock: Clock,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._removal = removal
        self._places = places
        self._signing_key = signing_key
        self._unbroken = unbroken
        self._backlog = backlog
        self._clock = clock
        self._under_way: dict[UUID, asyncio.Task[Erasure]] = {}
        self._seen: dict[UUID, tuple[int, int]] = {}

    async def complete(self, live: Gallery, erasure: Erasure) -> Erasure:
        """Remove what is left of its list; returns the erasure with its receipt. It goes on when
        the caller leaves.

        Raises:
            Unavailable: as ``Removal.carry_out``.
        """
        return await asyncio.shield(self._begun(live, erasure))

    async def resume(self, *, at_once: bool) -> None:
        """Go on with erasures that were interrupted, one after the other; their failures are
        logged.

        Args:
            at_once: Nobody else can be at work on them. Otherwise one is taken over when it has not
                moved since the look before.

        Raises:
            Unavailable: the catalog cannot be read.
        """
        for erasure in await self._catalog.read(erasure_reads.running_erasures):
            progress = erasure.removed, erasure.absent
            stuck = at_once or self._seen.get(erasure.erasure_id) == progress
            self._seen[erasure.erasure_id] = progress
            if stuck and erasure.erasure_id not in self._under_way:
                await self._resume(erasure)

    def _begun(self, live: Gallery, erasure: Erasure) -> asyncio.Task[Erasure]:
        """The removal of this erasure in this process: one, however many ask for it."""
        task = self._under_way.get(erasure.erasure_id)
        if task is None:
            task = self._unbroken.begin(self._carry_out(live, erasure))
            self._under_way[erasure.erasure_id] = task
            task.add_done_callback(lambda _: self._under_way.pop(erasure.erasure_id, None))
        return task

    async def _carry_out(self, live: Gallery, erasure: Erasure) -> Erasure:
        try:
            evidence = await self._removal.carry_out(live, erasure)
            done = await self._finish(live, erasure, evidence)
        except Exception:
            ERASURES.labels("interrupted").inc()
            raise
        await self._backlog.look()
        return done

    async def _finish(self, live: Gallery, erasure: Erasure, evidence: Evidence) -> Erasure:
        find = partial(
            erasure_reads.find_erasure, gallery_row=live.row, erasure_id=erasure.erasure_id
        )
        now = self._clock.now()
        current = await self._catalog.read(find)
        told = await self._catalog.read(facts, current, evidence, self._places, now=now)
        receipt = await asyncio.to_thread(signed, told, self._signing_key)

        def apply(connection: Connection) -> bool:
            return erasures.finish(connection, erasure.erasure_row, receipt=receipt, now=now)

        if await self._catalog.change(apply):
            ERASURES.labels("done").inc()
            logger.info(
                "gallery %s: erasure %s is done, %d crops removed",
                live.name,
                erasure.erasure_id,
                current.removed,
            )
        return await self._catalog.read(find)

    async def _resume(self, erasure: Erasure) -> None:
        logger.warning(
            "gallery %s: erasure %s was interrupted after %d of %d crops; going on",
            erasure.gallery,
            erasure.erasure_id,
            erasure.removed,
            erasure.listed,
        )
        try:
            await self.complete(self._galleries.get(erasure.gallery), erasure)
        except ResightError as error:
            logger.error("erasure %s: %s", erasure.erasure_id, error)
        except Exception:
            logger.exception("erasure %s could not be finished; tried again", erasure.erasure_id)
