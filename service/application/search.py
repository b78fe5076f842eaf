"""Search: a query turned into a vector, compared, and answered with crops."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from resight.errors import DeadlineExceeded
from service.application.asked import Asked, Asking
from service.application.call_notes import note_answer
from service.application.dual_search import NO_PROBE, DualSearch
from service.application.embed import Embed
from service.application.fence import Fence
from service.application.galleries import Galleries
from service.application.looks import Looks
from service.application.matches import matches_of
from service.application.query_vectors import Probe, QueryVectors
from service.application.ranking import FirstLook, Ranking, candidates
from service.application.rerank_queue import RerankQueue
from service.catalog.store import Catalog
from service.domain.examples import Fusion
from service.domain.groups import Grouping
from service.domain.ports import IndexHits
from service.domain.query import Match, SearchAnswer, SearchQuery
from service.domain.rerank import CheckedRerank
from service.retrieval.cursor import Cursor, Page, checked_vectors, encode_cursor, following
from service.retrieval.grouping import grouped
from service.settings import LimitSettings

__all__ = ["Prepared", "Search"]

NO_VECTORS = np.empty((0, 0), np.float32)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A query that only the index is left to be asked of: checked, and its vectors."""

    query: SearchQuery
    asked: Asked
    probe: Probe


class Search:
    """Ranks the crops of a gallery by similarity to a query.

    Args:
        catalog: Where crops are read.
        galleries: Those served.
        embed: Makes vectors of images.
        fence: Closed while the index may not know of erasures.
        search_threads: Indexes are searched on them.
        limits: Bounds on what is asked.
        mirror: Told of every answer of the plain kind; returns at once.
        record_matches: Whether the audit is told which crops were found.
    """

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        embed: Embed,
        fence: Fence,
        search_threads: Executor,
        limits: LimitSettings,
        mirror: Callable[[Asked, SearchAnswer], None] = lambda _, __: None,
        record_matches: bool = False,
    ) -> None:
        self._catalog = catalog
        self._asking = Asking(catalog=catalog, galleries=galleries, limits=limits)
        self._vectors = QueryVectors(catalog=catalog, embed=embed, limits=limits)
        self._fence = fence
        self._search_threads = search_threads
        self._reranks = RerankQueue(limits.max_waiting_reranks)
        self._limits = limits
        self._mirror = mirror
        self._record_matches = record_matches
        self._dual = DualSearch(
            catalog=catalog,
            vectors=self._vectors,
            search_threads=search_threads,
            deepest=limits.max_ranked,
        )

    @property
    def threads(self) -> Executor:
        """Where indexes are searched."""
        return self._search_threads

    def close(self) -> None:
        """End the re-ranking thread; nothing may be under way. Blocks."""
        self._reranks.close()

    async def search(self, query: SearchQuery, *, with_examples: bool = False) -> SearchAnswer:
        """The best matches, best first, ties by crop id; a page of them.

        Args:
            query: The query.
            with_examples: Whether the query's own stored crops may match.

        Raises:
            InvalidArgument: no example or a bad one, or a bad value.
            NotFound: unknown gallery, crop or camera.
            FailedPrecondition: an embedding or a page of another model, or a probability asked of
                a model without calibration.
            ResourceExhausted, DeadlineExceeded, Unavailable: not now.
        """
        return await self.answer(await self.prepare(query, with_examples=with_examples))

    async def prepare(self, query: SearchQuery, *, with_examples: bool = False) -> Prepared:
        """Check a query and make its vectors.

        Everything that can be refused without the encoder is refused before it is asked.

        Raises:
            As ``search``.
        """
        self._fence.check()
        asked = await self._asking.checked(query)
        if with_examples:
            asked = _with_examples(asked)
        if asked.beside is not None:
            self._dual.check(query, asked)
            return Prepared(query, asked, NO_PROBE)
        return Prepared(query, asked, await self._probe(query, asked))

    async def answer(self, prepared: Prepared, *, first: FirstLook | None = None) -> SearchAnswer:
        """Ask the index; ``first`` is what it said already.

        Raises:
            As ``search``.
        """
        answer = await self._answered(prepared, first)
        note_answer(prepared.asked.gallery.name, answer, with_ids=self._record_matches)
        # The process may have stood still in the meantime.
        self._fence.check()
        return answer

    async def _answered(self, prepared: Prepared, first: FirstLook | None) -> SearchAnswer:
        query, asked, probe = prepared.query, prepared.asked, prepared.probe
        if query.deadline is not None and time.monotonic() >= query.deadline:
            raise DeadlineExceeded("the deadline passed before the search began; allow more time")
        if asked.beside is not None:
            return await self._dual.answer(query, asked, asked.beside)
        ranking = Ranking(
            asked, probe, deepest=self._limits.max_ranked, deadline=query.deadline, first=first
        )
        looks = Looks(self._catalog, self._search_threads, asked, ranking)
        if asked.grouping is not None:
            return _answer(asked, looks, groups=await self._groups(asked, looks, asked.grouping))
        if asked.rerank is not None:
            matches = await self._reranked(asked, looks, asked.rerank, query.deadline)
            return _answer(asked, looks, matches=matches)
        page = await looks.run(partial(self._page, asked))
        matches = await matches_of(self._catalog, asked, page.hits)
        answer = _answer(asked, looks, matches=matches, token=_token(asked, page, probe))
        self._mirror(asked, answer)
        return answer

    async def _probe(self, query: SearchQuery, asked: Asked) -> Probe:
        unwanted = len(asked.unwanted) if asked.fusion is Fusion.MAX else 0
        kept = None
        if asked.cursor is not None:
            kept = checked_vectors(
                asked.cursor, dimension=asked.serving.record.dimension, at_least=unwanted + 1
            )
        if kept is not None:
            return Probe.split(kept, unwanted)
        return await self._vectors.probe(
            asked.serving,
            asked.wanted,
            asked.unwanted,
            fusion=asked.fusion,
            deadline=query.deadline,
        )

    def _page(self, asked: Asked, best: Callable[[int], IndexHits]) -> Page:
        return following(best, asked.cursor, asked.top_k, deepest=self._limits.max_ranked)

    async def _groups(
        self, asked: Asked, looks: Looks, grouping: Grouping
    ) -> Sequence[Sequence[Match]]:
        return await grouped(
            looks.find,
            grouping,
            count=asked.top_k,
            chosen=asked.row_filter,
            camera_row=lambda name: asked.gallery.camera(name, field="group_by").camera_row,
            deepest=self._limits.max_ranked,
        )

    async def _reranked(
        self, asked: Asked, looks: Looks, rerank: CheckedRerank, deadline: float | None
    ) -> Sequence[Match]:
        hits, there, vectors = await looks.run(partial(candidates, asked, rerank.candidates))
        scores = hits.scores[there]
        distances = await self._reranks.distances(vectors, scores, rerank, deadline=deadline)
        # Ties as ranked before.
        order = np.argsort(distances, kind="stable")[: asked.top_k]
        ids = [hits.ids[place] for place in there[order].tolist()]
        matches = await matches_of(
            self._catalog, asked, replace(hits, ids=ids, scores=scores[order])
        )
        placed = dict(zip(ids, distances[order].tolist(), strict=True))
        return [match._replace(rerank_distance=placed[match.crop.crop_id]) for match in matches]


def _answer(
    asked: Asked,
    looks: Looks,
    *,
    matches: Sequence[Match] = (),
    groups: Sequence[Sequence[Match]] = (),
    token: str = "",
) -> SearchAnswer:
    return SearchAnswer(
        matches=matches,
        model_version=asked.serving.version,
        mode=looks.mode,
        rows_scanned=looks.scanned,
        rows_total=looks.total,
        index_lag_seconds=asked.gallery.index_lag_seconds,
        next_page_token=token,
        groups=groups,
    )


def _with_examples(asked: Asked) -> Asked:
    unwanted = frozenset(item.crop_id for item in asked.unwanted if item.crop_id is not None)
    return replace(asked, row_filter=replace(asked.row_filter, exclude_ids=unwanted))


def _token(asked: Asked, page: Page, probe: Probe) -> str:
    if not page.more:
        return ""
    hits, before = page.hits, 0 if asked.cursor is None else asked.cursor.given
    pictured = any(item.example.image is not None for item in (*asked.wanted, *asked.unwanted))
    vectors = probe.stacked() if pictured else NO_VECTORS
    cursor = Cursor(float(hits.scores[-1]), hits.ids[-1], before + len(hits.ids), vectors)
    return encode_cursor(cursor, query=asked.digest, model_version=asked.serving.version)
