"""A share of the searches asked of a second model, too, in the background.

overlap@k = share of the live model's first k matches that the second model finds among its own
first k, k = min(10, matches of the answer).

Intended deviations: scores of two models are of two scales, so no threshold is carried over; pages
after the first, groups, re-rankings and queries by a vector, which is of one model, are left out.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from uuid import UUID

import numpy as np

from resight.errors import ResightError
from service.application.asked import Asked
from service.application.gallery import Gallery
from service.application.query_vectors import Probe, QueryVectors
from service.application.ranking import Ranking
from service.application.serving import Serving
from service.domain.ports import Priority
from service.domain.query import SearchAnswer
from service.telemetry import MIRROR_DURATION, MIRROR_OVERLAP, MIRROR_SCORE, MIRRORED

__all__ = ["Mirror", "Overlap"]

logger = logging.getLogger(__name__)

DEPTH = 10
REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Overlap:
    """What mirrored searches said of two models: how many there were, and their mean overlap."""

    searches: int
    mean: float


@dataclass(frozen=True, slots=True)
class _Waiting:
    asked: Asked
    second: Serving
    role: str
    found: tuple[UUID, ...]
    best: float


class Mirror:
    """Asks a second model; never more than one search at a time, after those who wait.

    Args:
        share: Of the searches.
        queue: Searches that wait at most; more are dropped and counted.
        vectors: Makes the vectors of queries.
        search_threads: Indexes are searched on them.
        deepest: Most rows that may be ranked.
    """

    def __init__(
        self,
        *,
        share: float,
        queue: int,
        vectors: QueryVectors,
        search_threads: Executor,
        deepest: int,
    ) -> None:
        self._share = share
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(queue)
        self._vectors = vectors
        self._search_threads = search_threads
        self._deepest = deepest
        # Key and role of the model to ask, by gallery.
        self._second: dict[int, tuple[int, str]] = {}
        # By the pair of models, live one first, so that nothing is carried over a promotion.
        self._seen: dict[tuple[int, str, str], deque[float]] = {}

    def choose(self, gallery: Gallery, second: tuple[int, str] | None) -> None:
        """Which model of a gallery to ask, by its key, and its role; None: nobody."""
        if second is None:
            self._second.pop(gallery.row, None)
        else:
            self._second[gallery.row] = second

    def offer(self, asked: Asked, answer: SearchAnswer) -> None:
        """Ask the second model the same later, if it is this search's turn."""
        if not self._share or random.random() >= self._share:  # noqa: S311 -- a sample
            return
        if asked.grouping or asked.rerank or asked.cursor or not answer.matches:
            return
        examples = [item.example for item in (*asked.wanted, *asked.unwanted)]
        if any(example.embedding is not None for example in examples):
            return
        second = self._chosen(asked)
        if second is None:
            return
        first = answer.matches[:DEPTH]
        found = tuple(match.crop.crop_id for match in first)
        try:
            self._queue.put_nowait(_Waiting(asked, *second, found, first[0].score))
        except asyncio.QueueFull:
            MIRRORED.labels(asked.gallery.name, "dropped").inc()

    def overlap(self, gallery: Gallery, live: str, second: str) -> Overlap:
        """What the last mirrored searches between two versions said, in this process."""
        seen = self._seen.get((gallery.row, live, second), ())
        return Overlap(len(seen), float(np.mean(seen)) if seen else 0.0)

    async def run(self) -> None:
        """Ask, until cancelled."""
        while True:
            waiting = await self._queue.get()
            name = waiting.asked.gallery.name
            try:
                await self._ask(waiting)
            except ResightError as error:
                MIRRORED.labels(name, "failed").inc()
                logger.debug("gallery %s: a mirrored search failed: %s", name, error)
            except Exception:
                MIRRORED.labels(name, "failed").inc()
                logger.exception("gallery %s: a mirrored search failed", name)
            else:
                MIRRORED.labels(name, "answered").inc()

    def _chosen(self, asked: Asked) -> tuple[Serving, str] | None:
        model_row, role = self._second.get(asked.gallery.row, (0, ""))
        for serving in asked.gallery.models.warm:
            if serving.record.model_row == model_row and serving is not asked.serving:
                return serving, role
        return None

    async def _ask(self, waiting: _Waiting) -> None:
        began = time.perf_counter()
        asked, name = waiting.asked, waiting.asked.gallery.name
        probe = await self._vectors.probe(
            waiting.second,
            asked.wanted,
            asked.unwanted,
            fusion=asked.fusion,
            deadline=None,
            priority=Priority.BULK,
        )
        second = replace(asked, serving=waiting.second, lowest=None, min_probability=None)
        loop = asyncio.get_running_loop()
        ids, best = await loop.run_in_executor(
            self._search_threads, self._best, second, probe, len(waiting.found)
        )
        overlap = len(set(ids) & set(waiting.found)) / len(waiting.found)
        live = asked.serving.version
        key = asked.gallery.row, live, waiting.second.version
        self._seen.setdefault(key, deque(maxlen=REMEMBERED)).append(overlap)
        MIRROR_OVERLAP.labels(name, waiting.role).observe(overlap)
        MIRROR_SCORE.labels(name, "live").observe(waiting.best)
        if ids:
            MIRROR_SCORE.labels(name, waiting.role).observe(best)
        MIRROR_DURATION.labels(name, waiting.role).observe(time.perf_counter() - began)

    def _best(self, asked: Asked, probe: Probe, count: int) -> tuple[list[UUID], float]:
        hits = Ranking(asked, probe, deepest=self._deepest).best(count)
        return list(hits.ids), float(hits.scores[0]) if hits.ids else 0.0
