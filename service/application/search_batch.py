"""Several searches in one call, each with its own answer or error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from resight.errors import InvalidArgument, PermissionDenied, ResightError
from service import call
from service.application.first_looks import first_looks
from service.application.ranking import FirstLook
from service.application.search import Prepared, Search
from service.domain.query import SearchAnswer, SearchQuery
from service.settings import LimitSettings

__all__ = ["SearchBatch"]


class SearchBatch:
    """Answers queries side by side, so that their images share the encoder's batches, and those
    with one filter their look at the index.
    """

    def __init__(self, *, search: Search, limits: LimitSettings) -> None:
        self._search = search
        self._limits = limits

    async def search(
        self, queries: Sequence[SearchQuery | ResightError]
    ) -> list[SearchAnswer | ResightError]:
        """One answer or error for each query, in their order; an error stays what it is.

        Raises:
            InvalidArgument: no query, or too many.
            ResourceExhausted: more than the caller may ask now; each query counts.
        """
        self.check(len(queries))
        call.current().charge(len(queries) - 1)
        prepared = await asyncio.gather(*(self._prepared(query) for query in queries))
        sound = [item for item in prepared if isinstance(item, Prepared)]
        looks = iter(
            await first_looks(sound, self._search.threads, deepest=self._limits.max_ranked)
        )
        return list(
            await asyncio.gather(
                *(
                    self._answer(item, next(looks) if isinstance(item, Prepared) else None)
                    for item in prepared
                )
            )
        )

    def check(self, count: int) -> None:
        """Refuse a batch by its size, before anything is made of its queries.

        Raises:
            InvalidArgument: no query, or too many.
        """
        if not 1 <= count <= self._limits.max_batch_queries:
            raise InvalidArgument(
                f"queries are {count}; send 1 to {self._limits.max_batch_queries} "
                "(limits.max_batch_queries)",
                field="queries",
            )

    async def _prepared(self, query: SearchQuery | ResightError) -> Prepared | ResightError:
        if isinstance(query, ResightError):
            return _noted(query, call.UNREAD)
        try:
            return await self._search.prepare(query)
        except ResightError as error:
            return _noted(error, query.gallery)

    async def _answer(
        self, prepared: Prepared | ResightError, first: FirstLook | None
    ) -> SearchAnswer | ResightError:
        if isinstance(prepared, ResightError):
            return prepared
        try:
            return await self._search.answer(prepared, first=first)
        except ResightError as error:
            return _noted(error, prepared.asked.gallery.name)


def _noted(error: ResightError, gallery: str) -> ResightError:
    denied = isinstance(error, PermissionDenied)
    call.current().note_fault(error.reason, gallery, denied=denied)
    return error
