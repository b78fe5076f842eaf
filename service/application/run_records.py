"""The records of adaptation runs: read, listed, with the crops they used."""

from __future__ import annotations

from uuid import UUID

from service import call
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.run_key import run_id
from service.catalog import run_reads
from service.catalog.run_reads import RunRecord
from service.catalog.store import Catalog
from service.domain import page as pages
from service.domain.adaptation import AdaptationRun
from service.domain.page import Page

__all__ = ["RunRecords"]


class RunRecords:
    """Reads what is known of the runs of a gallery."""

    def __init__(self, *, catalog: Catalog, galleries: Galleries, max_page_size: int) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._max_page_size = max_page_size

    async def get(self, gallery: str, identifier: str) -> AdaptationRun:
        """One run with its figures.

        Raises:
            InvalidArgument, NotFound: bad or unknown id.
        """
        live, wanted = self._galleries.get(gallery), run_id(identifier)
        call.current().note(run_id=str(wanted))
        return (await self._record(live, wanted, with_figures=True)).run

    async def list(
        self, gallery: str, page_size: int = 0, page_token: str = ""
    ) -> Page[AdaptationRun]:
        """Runs from the newest, without figures.

        Raises:
            InvalidArgument, NotFound: bad page or unknown gallery.
        """
        live = self._galleries.get(gallery)
        size = pages.page_size(page_size, limit=self._max_page_size)
        listing = f"adaptation-runs/{live.name}"
        position = pages.decode_token(page_token, listing=listing)
        found = await self._catalog.read(
            run_reads.list_runs,
            live.record.gallery_row,
            before=int(position[0]) if position else None,
            limit=size + 1,
        )
        more = len(found) > size
        token = pages.encode_token([found[size - 1].run_row], listing=listing) if more else ""
        call.current().note(runs=len(found[:size]))
        return Page([record.run for record in found[:size]], token)

    async def list_crops(
        self, gallery: str, identifier: str, page_size: int = 0, page_token: str = ""
    ) -> Page[tuple[UUID, bool]]:
        """Crops a run used, each with whether it was for replay, by id.

        Raises:
            InvalidArgument, NotFound: bad page, unknown gallery or run.
        """
        live, wanted = self._galleries.get(gallery), run_id(identifier)
        call.current().note(run_id=str(wanted))
        record = await self._record(live, wanted)
        size = pages.page_size(page_size, limit=self._max_page_size)
        listing = f"adaptation-run-crops/{live.name}/{wanted}"
        position = pages.decode_token(page_token, listing=listing, shape=(UUID,))
        found = await self._catalog.read(
            run_reads.list_run_crops,
            record.run_row,
            after=UUID(hex=str(position[0])) if position else None,
            limit=size + 1,
        )
        more = len(found) > size
        token = pages.encode_token([found[size - 1][0].hex], listing=listing) if more else ""
        call.current().note(crops=len(found[:size]))
        return Page(found[:size], token)

    async def _record(
        self, live: Gallery, identifier: UUID, *, with_figures: bool = False
    ) -> RunRecord:
        record = await self._catalog.read(
            run_reads.find_run, live.record.gallery_row, identifier, with_figures=with_figures
        )
        if record is None:
            raise run_reads.unknown_run(identifier)
        return record
