"""Searches in a gallery whose older crops have vectors of the model before alone.

Each model ranks by its own vectors; what both hold counts by the live one's. Scores of two models
are of two scales, so the two lists are merged by what their calibrations make of them:

    rank by probability(score, calibration of the model that gave it), ties by crop id.

Pages, groups, re-ranking and thresholds on scores mean one scale, and are refused by name.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from resight.errors import FailedPrecondition, NotFound
from service.application.asked import Asked
from service.application.matches import matches_of
from service.application.query_vectors import Probe, QueryVectors
from service.application.ranking import Ranking
from service.application.serving import Serving
from service.catalog.store import Catalog
from service.domain.ports import IndexHits
from service.domain.query import Match, SearchAnswer, SearchQuery
from service.retrieval import probability

__all__ = ["NO_PROBE", "DualSearch"]

_NOTHING = np.empty((0, 0), np.float32)
NO_PROBE = Probe(_NOTHING, _NOTHING)


class _Part(NamedTuple):
    asked: Asked
    hits: IndexHits


class DualSearch:
    """Asks both models of a gallery.

    Args:
        catalog: Where crops are read.
        vectors: Makes the vectors of queries.
        search_threads: Indexes are searched on them.
        deepest: Most rows that may be ranked.
    """

    def __init__(
        self, *, catalog: Catalog, vectors: QueryVectors, search_threads: Executor, deepest: int
    ) -> None:
        self._catalog = catalog
        self._vectors = vectors
        self._search_threads = search_threads
        self._deepest = deepest

    def check(self, query: SearchQuery, asked: Asked) -> None:
        """Refuse what means one scale of scores.

        Raises:
            FailedPrecondition: it does (``DUAL_SERVED``).
        """
        refused = {
            "page_token": asked.cursor is not None,
            "group_by": asked.grouping is not None,
            "rerank": asked.rerank is not None,
            "min_score": query.min_score is not None,
            "embedding": any(
                item.example.embedding is not None for item in (*asked.wanted, *asked.unwanted)
            ),
        }
        for field, asks in refused.items():
            if asks:
                raise FailedPrecondition(
                    f"{field}: the older crops of gallery {asked.gallery.name!r} have vectors of "
                    "the model before alone, and scores of two models are of two scales; leave it "
                    "away (min_probability works), until they have expired",
                    field=field,
                    reason="DUAL_SERVED",
                )

    async def answer(self, query: SearchQuery, asked: Asked, beside: Serving) -> SearchAnswer:
        """The best matches of both models.

        Raises:
            As ``Search.search``.
        """
        live = await self._probe(asked, query.deadline)
        second = replace(asked, serving=beside, lowest=_lowest(asked, beside))
        old = await self._probe(second, query.deadline)
        if isinstance(live, NotFound) and isinstance(old, NotFound):
            raise live
        parts: list[_Part] = []
        loop = asyncio.get_running_loop()
        if isinstance(live, Probe):
            ranking = self._ranking(query, asked, live)
            hits = await loop.run_in_executor(self._search_threads, ranking.best, asked.top_k)
            parts.append(_Part(asked, hits))
        if isinstance(old, Probe):
            ranking = self._ranking(query, second, old)
            hits = await loop.run_in_executor(self._search_threads, self._alone, asked, ranking)
            parts.append(_Part(second, hits))
        matches = [match for part in parts for match in await self._matches(part)]
        matches.sort(key=lambda match: (-(match.probability or 0.0), match.crop.crop_id))
        return SearchAnswer(
            matches=matches[: asked.top_k],
            model_version=asked.serving.version,
            mode=parts[0].hits.mode,
            rows_scanned=sum(part.hits.rows_scanned for part in parts),
            rows_total=max(part.hits.rows_total for part in parts),
            index_lag_seconds=asked.gallery.index_lag_seconds,
            next_page_token="",
            groups=(),
        )

    async def _probe(self, asked: Asked, deadline: float | None) -> Probe | NotFound:
        """The vectors of the examples; NotFound when one of them has none of this model."""
        try:
            return await self._vectors.probe(
                asked.serving, asked.wanted, asked.unwanted, fusion=asked.fusion, deadline=deadline
            )
        except NotFound as error:
            return error

    def _ranking(self, query: SearchQuery, asked: Asked, probe: Probe) -> Ranking:
        return Ranking(asked, probe, deepest=self._deepest, deadline=query.deadline)

    def _alone(self, asked: Asked, ranking: Ranking) -> IndexHits:
        """The best rows that the live model has no vector of."""
        depth, live = asked.top_k, asked.serving.index
        while True:
            hits = ranking.best(depth)
            held = set(live.vectors_of(hits.ids)[0].tolist()) if hits.ids else set()
            kept = [place for place in range(len(hits.ids)) if place not in held][: asked.top_k]
            if len(kept) == asked.top_k or len(hits.ids) < depth or depth >= self._deepest:
                return replace(
                    hits, ids=[hits.ids[place] for place in kept], scores=hits.scores[kept]
                )
            depth = min(4 * depth, self._deepest)

    async def _matches(self, part: _Part) -> list[Match]:
        found = await matches_of(self._catalog, part.asked, part.hits)
        return [match._replace(model_version=part.asked.serving.version) for match in found]


def _lowest(asked: Asked, beside: Serving) -> float | None:
    if asked.min_probability is None:
        return None
    calibration = probability.needed(beside.encoder.calibration, beside.version)
    return probability.lowest_score(calibration, asked.min_probability)
