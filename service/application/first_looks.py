"""The first look at the index for several queries at once.

Queries of one gallery, filter, depth and threshold share each block of rows while it lies in the
cache, and the matrix kernel instead of one product after another. A query's own stored crops, which
may not match, are no obstacle: so many rows more are asked for, and they are dropped from the
answer, which is the same by definition of the ranking.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from service.application.asked import Asked
from service.application.ranking import FirstLook
from service.application.search import Prepared
from service.domain.ports import IndexHits, RowFilter

__all__ = ["first_looks"]

logger = logging.getLogger(__name__)

# Vectors in one look: past this they gain little, and what waits behind them waits longer.
MOST_VECTORS = 16


async def first_looks(
    prepared: Sequence[Prepared], threads: Executor, *, deepest: int
) -> list[FirstLook | None]:
    """For each query what the index says first; None where it is to be asked by itself.

    Args:
        prepared: The queries.
        threads: Indexes are searched on them.
        deepest: Most rows that may be ranked.
    """
    found: list[FirstLook | None] = [None] * len(prepared)
    loop = asyncio.get_running_loop()
    looks = [
        (places, loop.run_in_executor(threads, _look, [prepared[place] for place in places]))
        for places in _alike(prepared, deepest)
    ]
    for places, look in looks:
        try:
            hits = await look
        except Exception:
            # Whoever is at fault must not fail the others: each asks for itself.
            logger.exception("a look for %d queries together failed", len(places))
            continue
        for place, first in zip(places, hits, strict=True):
            found[place] = first
    return found


def _alike(prepared: Sequence[Prepared], deepest: int) -> list[list[int]]:
    """Places of queries that can be looked up together, at least two and a bounded number."""
    groups: list[list[int]] = []
    for place, item in enumerate(prepared):
        if item.asked.beside is not None or _depth(item.asked) > deepest + 1:
            continue
        for group in groups:
            vectors = sum(len(prepared[other].probe.wanted) for other in group)
            full = vectors + len(item.probe.wanted) > MOST_VECTORS
            if not full and _shared(prepared[group[0]].asked, item.asked):
                group.append(place)
                break
        else:
            groups.append([place])
    return [group for group in groups if len(group) > 1]


def _shared(one: Asked, other: Asked) -> bool:
    return (
        one.serving is other.serving
        and one.lowest == other.lowest
        and _depth(one) == _depth(other)
        and _without_ids(one.row_filter) == _without_ids(other.row_filter)
    )


def _look(prepared: Sequence[Prepared]) -> list[FirstLook | None]:
    asked = prepared[0].asked
    deadlines = [item.query.deadline for item in prepared]
    if all(deadline is not None and time.monotonic() >= deadline for deadline in deadlines):
        return [None] * len(prepared)
    depth = _depth(asked)
    spare = max(len(item.asked.row_filter.exclude_ids) for item in prepared)
    answers = iter(
        asked.serving.index.search_batch(
            np.concatenate([item.probe.wanted for item in prepared]),
            depth + spare,
            _without_ids(asked.row_filter),
            asked.lowest,
        )
    )
    return [
        FirstLook(
            depth,
            [_own_dropped(next(answers), item.asked.row_filter, depth) for _ in item.probe.wanted],
        )
        for item in prepared
    ]


def _own_dropped(hits: IndexHits, chosen: RowFilter, depth: int) -> IndexHits:
    excluded = chosen.exclude_ids
    kept = [place for place, crop_id in enumerate(hits.ids) if crop_id not in excluded][:depth]
    return replace(hits, ids=[hits.ids[place] for place in kept], scores=hits.scores[kept])


def _without_ids(chosen: RowFilter) -> RowFilter:
    return replace(chosen, exclude_ids=frozenset())


def _depth(asked: Asked) -> int:
    """How deep a query looks first."""
    if asked.grouping is not None:
        return asked.top_k * asked.grouping.size
    if asked.rerank is not None:
        return asked.rerank.candidates
    given = 0 if asked.cursor is None else asked.cursor.given
    return given + asked.top_k + 1
