"""Search: a query turned into a vector, compared, and answered with crops."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import Executor

import numpy as np

from resight.bundle.calibration import Calibration
from resight.errors import DeadlineExceeded
from service.application.asked import Asked, Asking
from service.application.embed import Embed
from service.application.galleries import Galleries
from service.application.query_vectors import Probe, QueryVectors
from service.application.ranking import Ranking
from service.catalog import crop_reads
from service.catalog.store import Catalog
from service.domain.examples import Fusion
from service.domain.ports import IndexHits
from service.domain.query import Match, SearchAnswer, SearchQuery
from service.retrieval.cursor import Cursor, Page, encode_cursor, following
from service.settings import LimitSettings

__all__ = ["Search"]

NO_VECTORS = np.empty((0, 0), np.float32)


class Search:
    """Ranks the crops of a gallery by similarity to a query.

    Args:
        catalog: Where crops are read.
        galleries: Those served.
        embed: Makes vectors of images.
        search_threads: Indexes are searched on them.
        limits: Bounds on what is asked.
        calibrations: By model version, of the bundles that have one.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        embed: Embed,
        search_threads: Executor,
        limits: LimitSettings,
        calibrations: Mapping[str, Calibration],
    ) -> None:
        self._catalog = catalog
        self._asking = Asking(
            catalog=catalog, galleries=galleries, limits=limits, calibrations=calibrations
        )
        self._vectors = QueryVectors(catalog=catalog, embed=embed, limits=limits)
        self._search_threads = search_threads
        self._limits = limits

    async def search(self, query: SearchQuery) -> SearchAnswer:
        """The best matches, best first, ties by crop id; a page of them.

        Everything that can be refused without the encoder is refused before it is asked.

        Raises:
            InvalidArgument: no example or a bad one, or a bad value.
            NotFound: unknown gallery, crop or camera.
            FailedPrecondition: an embedding or a page of another model, or a probability asked of
                a model without calibration.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        asked = await self._asking.checked(query)
        probe = await self._probe(query, asked)
        if query.deadline is not None and time.monotonic() >= query.deadline:
            raise DeadlineExceeded("the deadline passed before the search began; allow more time")
        page = await asyncio.get_running_loop().run_in_executor(
            self._search_threads, self._page, asked, probe
        )
        return await self._answer(asked, page.hits, _token(asked, page, probe))

    async def _probe(self, query: SearchQuery, asked: Asked) -> Probe:
        kept = asked.cursor
        if kept is not None and len(kept.vectors):
            several = asked.fusion is Fusion.MAX
            return Probe.split(kept.vectors, len(asked.unwanted) if several else 0)
        return await self._vectors.probe(
            asked.gallery,
            asked.wanted,
            asked.unwanted,
            fusion=asked.fusion,
            deadline=query.deadline,
        )

    def _page(self, asked: Asked, probe: Probe) -> Page:
        deepest = self._limits.max_ranked
        best = Ranking(asked, probe, deepest=deepest).best
        return following(best, asked.cursor, asked.top_k, deepest=deepest)

    async def _answer(self, asked: Asked, hits: IndexHits, token: str) -> SearchAnswer:
        return SearchAnswer(
            matches=await self._matches(asked, hits),
            model_version=asked.model_version,
            mode=hits.mode,
            rows_scanned=hits.rows_scanned,
            rows_total=hits.rows_total,
            index_lag_seconds=asked.gallery.index_lag_seconds,
            next_page_token=token,
        )

    async def _matches(self, asked: Asked, hits: IndexHits) -> tuple[Match, ...]:
        if not hits.ids:
            return ()
        crops = await self._catalog.read(
            crop_reads.crops_by_id,
            asked.gallery.record.gallery_row,
            hits.ids,
            gallery_size=hits.rows_total,
        )
        scores, calibration = hits.scores.tolist(), asked.calibration
        likely = [None] * len(scores) if calibration is None else calibration.probabilities(scores)
        # A crop deleted since the search is in the hits but no longer in the catalog.
        return tuple(
            Match(crop, score, same)
            for crop, score, same in zip(crops, scores, likely, strict=True)
            if crop is not None
        )


def _token(asked: Asked, page: Page, probe: Probe) -> str:
    if not page.more:
        return ""
    hits, before = page.hits, 0 if asked.cursor is None else asked.cursor.given
    pictured = any(item.example.image is not None for item in (*asked.wanted, *asked.unwanted))
    vectors = probe.stacked() if pictured else NO_VECTORS
    cursor = Cursor(float(hits.scores[-1]), hits.ids[-1], before + len(hits.ids), vectors)
    return encode_cursor(cursor, query=asked.digest, model_version=asked.model_version)
