"""Erasures: planned, reviewed, confirmed, carried out, and proved."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import InvalidArgument, PermissionDenied, ResightError
from service import call
from service.application.erasure.planning import Plan, Planning
from service.application.erasure.receipt import Places, facts, signed
from service.application.erasure.removal import Evidence, Removal
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.unbroken import Unbroken
from service.catalog import erasure_reads, erasures
from service.catalog.store import Catalog
from service.domain import erasure as domain
from service.domain import names
from service.domain import page as pages
from service.domain.erasure import Erasure, ErasureState, ListedCrop, Subject
from service.domain.identifier import uuid7
from service.domain.page import Page
from service.domain.ports import Clock
from service.settings import LimitSettings
from service.signing import SigningKey
from service.telemetry import ERASURE_OPEN, ERASURE_OVERDUE, ERASURES

__all__ = ["Erasures", "require_unlimited"]

logger = logging.getLogger(__name__)

# After so long nobody is making a list any more.
STALE = timedelta(hours=1)
MAX_KEEP = 10_000
LOOK_SECONDS = 15.0


class Erasures:
    """Plans, reviews, confirms and proves erasures.

    Args:
        catalog: Where they are kept.
        galleries: Those served.
        planning: Finds the crops.
        removal: Removes them.
        places: What a receipt names.
        signing_key: Signs receipts.
        unbroken: Keeps a removal going when its caller leaves.
        clock: Gives times.
        limits: Bounds on pages.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        planning: Planning,
        removal: Removal,
        places: Places,
        signing_key: SigningKey,
        unbroken: Unbroken,
        clock: Clock,
        limits: LimitSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._planning = planning
        self._removal = removal
        self._places = places
        self._signing_key = signing_key
        self._unbroken = unbroken
        self._clock = clock
        self._limits = limits
        self._under_way: dict[UUID, asyncio.Task[Erasure]] = {}
        self._open: dict[str, int] = {}
        self._oldest: datetime | None = None

    async def plan(self, gallery: str, subject: Subject, reason: str) -> Erasure:
        """Make the list of crops that would go; nothing is removed. Crops stored later are not on
        it, and no confirmation removes them.

        Raises:
            InvalidArgument, NotFound: a bad subject or reason, unknown gallery, camera or crop.
            PermissionDenied: the caller does not see all of the gallery.
            Unavailable, and as ``Search.search``: not now.
        """
        live = self._enter(gallery)
        why = domain.reason(reason)
        plan = self._planning.checked(live, subject)
        erasure_id = uuid7(self._clock.now())
        call.current().note(erasure_id=str(erasure_id), subject=plan.text, reason=why)
        begin = partial(
            erasures.begin_listing,
            gallery_row=live.row,
            erasure_id=erasure_id,
            subject=plan.text,
            reason=why,
            principal=call.current().known.name,
            now=self._clock.now(),
        )
        row = await self._catalog.change(begin)
        try:
            await self._fill(live, row, plan)
        except BaseException:
            await self._unbroken.run(self._discard(row))
            raise
        found = await self._catalog.read(erasure_reads.find_erasure, live.row, erasure_id)
        call.current().note(crops=found.listed, absent=found.absent)
        ERASURES.labels("planned").inc()
        await self._look()
        return found

    async def crops(
        self, gallery: str, erasure_id: str, page_size: int = 0, page_token: str = ""
    ) -> Page[ListedCrop]:
        """A page of the list: of a likeness best score first, of others by capture time.

        Raises:
            InvalidArgument, NotFound: bad id or page, unknown gallery or erasure.
            PermissionDenied: the caller does not see all of the gallery.
        """
        live = self._enter(gallery)
        erasure = await self._find(live, erasure_id)
        size = pages.page_size(page_size, limit=self._limits.max_page_size)
        listing = f"erasure-crops/{live.name}/{erasure.erasure_id}"
        position = pages.decode_token(page_token, listing=listing)
        after = int(position[0]) if position else 0
        found = await self._catalog.read(
            erasure_reads.list_crops, erasure, after=after, limit=size + 1
        )
        more = len(found) > size
        token = pages.encode_token([found[size - 1].place], listing=listing) if more else ""
        return Page(found[:size], token)

    async def confirm(
        self, gallery: str, erasure_id: str, *, crops: int, keep: Sequence[str] = ()
    ) -> Erasure:
        """Remove the reviewed crops everywhere; returns the erasure with its receipt. Called again
        it goes on where it was interrupted, or returns the receipt.

        Args:
            gallery: The gallery.
            erasure_id: The erasure.
            crops: The reviewer's count of the crops that go.
            keep: Crops that stay.

        Raises:
            InvalidArgument, NotFound: bad id, unknown gallery or erasure, a crop not on the list.
            FailedPrecondition: another count (``ERASURE_COUNT_DIFFERS``), or it was cancelled.
            PermissionDenied: the caller does not see all of the gallery.
            Unavailable: not now; what was removed stays removed.
        """
        live = self._enter(gallery)
        if len(keep) > MAX_KEEP:
            raise InvalidArgument(
                f"keep_crop_ids has {len(keep)} ids; send at most {MAX_KEEP}, or plan again with "
                "a narrower subject",
                field="keep_crop_ids",
            )
        confirm = partial(
            erasures.confirm,
            gallery_row=live.row,
            erasure_id=names.crop_id(erasure_id, field="erasure_id"),
            keep={names.crop_id(value, field="keep_crop_ids") for value in keep},
            crops_confirmed=crops,
            confirmer=call.current().known.name,
            now=self._clock.now(),
        )
        erasure = await self._catalog.change(confirm)
        call.current().note(
            erasure_id=str(erasure.erasure_id), crops=erasure.listed, kept=erasure.kept
        )
        await self._look()
        if erasure.state is ErasureState.RUNNING:
            erasure = await asyncio.shield(self._begun(live, erasure))
        call.current().note(removed=erasure.removed, absent=erasure.absent)
        return erasure

    async def cancel(self, gallery: str, erasure_id: str) -> Erasure:
        """Withdraw an erasure that was not confirmed.

        Raises:
            InvalidArgument, NotFound: bad id, unknown gallery or erasure.
            FailedPrecondition: it was confirmed (``ERASURE_CONFIRMED``).
            PermissionDenied: the caller does not see all of the gallery.
        """
        live = self._enter(gallery)
        wanted = names.crop_id(erasure_id, field="erasure_id")
        call.current().note(erasure_id=str(wanted))
        apply = partial(
            erasures.cancel, gallery_row=live.row, erasure_id=wanted, now=self._clock.now()
        )
        cancelled = await self._catalog.change(apply)
        ERASURES.labels("cancelled").inc()
        await self._look()
        return cancelled

    async def get(self, gallery: str, erasure_id: str) -> Erasure:
        """An erasure, with its receipt when it is done.

        Raises:
            InvalidArgument, NotFound: bad id, unknown gallery or erasure.
            PermissionDenied: the caller does not see all of the gallery.
        """
        return await self._find(self._enter(gallery), erasure_id)

    async def list(self, gallery: str, page_size: int = 0, page_token: str = "") -> Page[Erasure]:
        """Erasures, newest first, without receipts.

        Raises:
            InvalidArgument, NotFound: bad page, unknown gallery.
            PermissionDenied: the caller does not see all of the gallery.
        """
        live = self._enter(gallery)
        size = pages.page_size(page_size, limit=self._limits.max_page_size)
        listing = f"erasures/{live.name}"
        position = pages.decode_token(page_token, listing=listing)
        before = int(position[0]) if position else None
        found = await self._catalog.read(
            erasure_reads.list_erasures, live.row, before=before, limit=size + 1
        )
        more = len(found) > size
        token = pages.encode_token([found[size - 1].erasure_row], listing=listing) if more else ""
        return Page(found[:size], token)

    async def keep(self, *, is_alone: Callable[[], bool]) -> None:
        """Go on with erasures that were interrupted, until cancelled; failures are logged.

        Args:
            is_alone: Whether nobody else can be at work on them; blocking. Otherwise one is taken
                over when it has not moved between two looks.
        """
        seen: dict[UUID, tuple[int, int]] = {}
        first = True
        while True:
            try:
                at_once = first and await asyncio.to_thread(is_alone)
                await self._discard_stale()
                for erasure in await self._catalog.read(erasure_reads.running_erasures):
                    progress = erasure.removed, erasure.absent
                    stuck = at_once or seen.get(erasure.erasure_id) == progress
                    seen[erasure.erasure_id] = progress
                    if stuck and erasure.erasure_id not in self._under_way:
                        await self._resume(erasure)
                await self._look()
            except ResightError as error:
                logger.error("erasures: %s", error)
            except Exception:
                logger.exception("erasures that were interrupted could not be resumed")
            first = False
            await asyncio.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End what is under way after its batch."""
        self._removal.stop()

    def show(self) -> None:
        """Bring the gauges up to date; the age grows on while the catalog cannot be read."""
        for state in (ErasureState.PLANNED, ErasureState.RUNNING):
            ERASURE_OPEN.labels(state.value).set(self._open.get(state.value, 0))
        age = 0.0 if self._oldest is None else (self._clock.now() - self._oldest).total_seconds()
        ERASURE_OVERDUE.set(max(0.0, age))

    def _enter(self, gallery: str) -> Gallery:
        live = self._galleries.get(gallery)
        require_unlimited("an erasure")
        return live

    async def _find(self, live: Gallery, erasure_id: str) -> Erasure:
        wanted = names.crop_id(erasure_id, field="erasure_id")
        call.current().note(erasure_id=str(wanted))
        return await self._catalog.read(erasure_reads.find_erasure, live.row, wanted)

    async def _fill(self, live: Gallery, row: int, plan: Plan) -> None:
        place = 1
        async for found in self._planning.blocks(live, plan):
            add = partial(erasures.add_listed, erasure_row=row, found=found, first=place)
            await self._catalog.change(add)
            place += len(found)
        await self._catalog.change(partial(erasures.planned, erasure_row=row, more=plan.more))

    async def _discard(self, row: int) -> None:
        now = self._clock.now()
        await self._catalog.change(partial(erasures.discard_listing, before=now, row=row))

    async def _discard_stale(self) -> None:
        before = self._clock.now() - STALE
        await self._catalog.change(partial(erasures.discard_listing, before=before))

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
        await self._look()
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
            await asyncio.shield(self._begun(self._galleries.get(erasure.gallery), erasure))
        except ResightError as error:
            logger.error("erasure %s: %s", erasure.erasure_id, error)
        except Exception:
            logger.exception("erasure %s could not be finished; tried again", erasure.erasure_id)

    async def _look(self) -> None:
        try:
            found: Any = await self._catalog.read(erasure_reads.open_erasures)
        except ResightError as error:
            logger.warning("it is not known which erasures are open: %s", error)
            return
        self._open, self._oldest = found


def require_unlimited(what: str) -> None:
    """Refuse a caller who does not see every crop of the gallery: what they decide is about all.

    Raises:
        PermissionDenied: they are limited to cameras or times.
    """
    principal = call.current().known
    if principal.is_limited:
        raise PermissionDenied(
            f"{principal.name} is limited to some cameras or times, and {what} concerns all of "
            "the gallery; use a key without such limits",
            field="authorization",
            reason="LIMITED_CALLER",
        )
