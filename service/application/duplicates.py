"""Whether crops are stored already: those that come while the catalog is asked are asked together.

A read costs more in threads and transactions than in rows. One read runs at a time, so an ingest at
full speed leaves the other reading threads to queries.

To ask at all only saves work, as storing a crop judges once more. So where crop after crop was
new, only a sample is asked about until one of them is not: when an ingest is repeated, a few dozen
crops may be embedded in vain.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import Context
from uuid import UUID

from service.catalog.duplicate_reads import CropIdentity, stored_crops
from service.catalog.store import Catalog
from service.tracing import spans
from service.tracing.trace import Place, here

__all__ = ["Duplicates"]

_MOST = 256  # parameters of a statement
_NEW_IN_A_ROW = 256
_SAMPLED = 16

_Question = tuple[CropIdentity, asyncio.Future[UUID | None], Place | None]


class Duplicates:
    """Asks one catalog; used on one event loop."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._waiting: list[_Question] = []
        self._asking: asyncio.Task[None] | None = None
        self._new_in_a_row: Counter[int] = Counter()
        self._turn = 0

    async def find(self, identity: CropIdentity) -> UUID | None:
        """The id of the stored crop that is equal; None when there is none, or nobody asked.

        Raises:
            Unavailable: the database does not answer.
        """
        gallery = identity.gallery_row
        self._turn += 1
        if self._new_in_a_row[gallery] >= _NEW_IN_A_ROW and self._turn % _SAMPLED:
            return None
        found = await self._looked_up(identity)
        self._new_in_a_row[gallery] = 0 if found else self._new_in_a_row[gallery] + 1
        return found

    async def _looked_up(self, identity: CropIdentity) -> UUID | None:
        reply: asyncio.Future[UUID | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((identity, reply, here()))
        if self._asking is None:
            # For every crop that waits, not for the call whose crop came first.
            self._asking = asyncio.create_task(self._ask(), context=Context())
        return await reply

    async def _ask(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                await self._answer([item for item in group if not item[1].done()])
        finally:
            self._asking = None

    async def _answer(self, group: list[_Question]) -> None:
        try:
            with spans.shared("look up crops", [place for *_, place in group]):
                found = await self._catalog.read(stored_crops, [identity for identity, *_ in group])
        except Exception as error:
            for _, reply, _ in group:
                if not reply.done():
                    reply.set_exception(error)
        else:
            for identity, reply, _ in group:
                if not reply.done():
                    reply.set_result(found.get(identity))
