"""Looks at an index for one query, on the searching threads, and what they cost together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from service import call
from service.application.asked import Asked
from service.application.matches import matches_of
from service.application.ranking import Ranking
from service.catalog.store import Catalog
from service.domain.ports import IndexHits, RowFilter
from service.domain.query import SearchMode
from service.retrieval.grouping import Found

__all__ = ["Looks"]

T = TypeVar("T")


class Looks:
    """One query's way to the index.

    Attributes:
        scanned: Rows compared so far.
        total: Rows that the gallery held at the last look; for a limited caller those alone that a
            look's filter let pass, as everything else is hidden.
        mode: Gathered, when every look was.
    """

    def __init__(self, catalog: Catalog, threads: Executor, asked: Asked, ranking: Ranking) -> None:
        self._catalog = catalog
        self._threads = threads
        self._asked = asked
        self._ranking = ranking
        self._is_limited = call.current().known.is_limited
        self.scanned = 0
        self.total = 0
        self.mode = SearchMode.EXACT_GATHER

    async def run(self, work: Callable[[Callable[[int], IndexHits]], T]) -> T:
        """``work`` on a searching thread, given the query's best rows as a function."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, work, self._best)

    async def find(self, count: int, chosen: RowFilter) -> Found:
        """The best matches under another filter."""
        loop = asyncio.get_running_loop()
        hits = await loop.run_in_executor(self._threads, self._best, count, chosen)
        matches = await matches_of(self._catalog, self._asked, hits)
        return Found(matches, len(hits.ids) < count)

    def _best(self, count: int, chosen: RowFilter | None = None) -> IndexHits:
        hits = self._ranking.best(count, chosen)
        self.scanned += hits.rows_scanned
        hidden = self._is_limited
        self.total = max(self.total, hits.rows_scanned) if hidden else hits.rows_total
        if hits.mode is SearchMode.EXACT_SCAN:
            self.mode = SearchMode.EXACT_SCAN
        return hits
