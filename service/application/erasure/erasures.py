"""The use cases of erasures: planned, reviewed, confirmed or cancelled, and told of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from resight.errors import InvalidArgument
from service import call
from service.application.erasure.backlog import Backlog
from service.application.erasure.completion import Completion
from service.application.erasure.planning import Plan, Planning
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.unbroken import Unbroken
from service.application.visibility import require_unlimited
from service.catalog import erasure_lists, erasure_reads, erasures
from service.catalog.store import Catalog
from service.domain import erasure as domain
from service.domain import names
from service.domain import page as pages
from service.domain.erasure import Erasure, ErasureState, ListedCrop, Subject
from service.domain.identifier import uuid7
from service.domain.page import Page
from service.domain.ports import Clock
from service.settings import LimitSettings
from service.telemetry import ERASURES

__all__ = ["Erasures"]

# After so long nobody is making a list any more.
STALE = timedelta(hours=1)
MAX_KEEP = 10_000


class Erasures:
    """Plans erasures, shows their lists, and confirms or cancels them.

    Args:
        catalog: Where they are kept.
        galleries: Those served.
        planning: Finds the crops.
        completion: Completes what is confirmed.
        backlog: Told of every change.
        unbroken: Discards a list whose caller leaves.
        clock: Gives times.
        limits: Bounds on pages.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        planning: Planning,
        completion: Completion,
        backlog: Backlog,
        unbroken: Unbroken,
        clock: Clock,
        limits: LimitSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._planning = planning
        self._completion = completion
        self._backlog = backlog
        self._unbroken = unbroken
        self._clock = clock
        self._limits = limits

    async def plan(self, gallery: str, subject: Subject, reason: str) -> Erasure:
        """Make the list of crops that would go; nothing is removed. Crops stored later are not on
        it, and no confirmation removes them.

        Raises:
            InvalidArgument, NotFound: a bad subject or reason, unknown gallery, camera or crop.
            PermissionDenied: the caller does not see all of the gallery.
            Unavailable, and as ``Search.search``: not now.
        """
        live = self._enter(gallery)
        call.current().note(subject_kind=domain.kind_of(subject))
        why = domain.reason(reason)
        plan = self._planning.checked(live, subject)
        erasure_id = uuid7(self._clock.now())
        call.current().note(erasure_id=str(erasure_id), subject=plan.text, reason=why)
        begin = partial(
            erasure_lists.begin_listing,
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
        await self._backlog.look()
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
        call.current().note(crops=len(found[:size]))
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
        wanted = names.crop_id(erasure_id, field="erasure_id")
        call.current().note(erasure_id=str(wanted), crops_confirmed=crops, keep=len(keep))
        confirm = partial(
            erasures.confirm,
            gallery_row=live.row,
            erasure_id=wanted,
            keep={names.crop_id(value, field="keep_crop_ids") for value in keep},
            crops_confirmed=crops,
            confirmer=call.current().known.name,
            now=self._clock.now(),
        )
        erasure = await self._catalog.change(confirm)
        call.current().note(crops=erasure.listed, kept=erasure.kept)
        await self._backlog.look()
        if erasure.state is ErasureState.RUNNING:
            erasure = await self._completion.complete(live, erasure)
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
        await self._backlog.look()
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
        call.current().note(erasures=len(found[:size]))
        return Page(found[:size], token)

    async def discard_stale(self) -> None:
        """Forget lists that nobody is making any more.

        Raises:
            Unavailable: not now.
        """
        before = self._clock.now() - STALE
        await self._catalog.change(partial(erasure_lists.discard_listing, before=before))

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
            add = partial(erasure_lists.add_listed, erasure_row=row, found=found, first=place)
            await self._catalog.change(add)
            place += len(found)
        await self._catalog.change(partial(erasure_lists.planned, erasure_row=row, more=plan.more))

    async def _discard(self, row: int) -> None:
        now = self._clock.now()
        await self._catalog.change(partial(erasure_lists.discard_listing, before=now, row=row))
