"""The rows that may be among the best of a query, asked of Milvus as deep as it takes.

Milvus compares in float32 and returns the best so many by its own products. A row belongs to the
best ``wanted`` by the score as defined only if its product is within the margin (twice the error of
a product) of the ``wanted``-th best. An answer is complete when it has fewer rows than were asked
for, or its last product lies below that. Else it is asked again, deeper, and where Milvus returns
no more rows, in two halves: the ids below and above the middle one of those returned. Each half has
fewer rows, so it ends, however many rows tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from service.milvus.collection import Found

__all__ = ["asked", "deepened", "is_complete"]

# Rows beyond those wanted, so that ties at the last place seldom need a second question.
SPARE = 16

# Rows asked for and a range of ids (empty sides are open) to the rows found.
Ask = Callable[[int, str, str], Found]


def asked(wanted: int, limit: int) -> int:
    """Rows to ask for at first."""
    return max(1, min(limit, wanted + wanted // 8 + SPARE))


def is_complete(found: Found, count: int, wanted: int, margin: float, known: float) -> bool:
    """Whether no row beyond these ``count`` asked for can be among the best.

    ``known`` is a bound that is known from elsewhere: products below it are not wanted.
    """
    if len(found.ids) < count:
        return True
    return float(found.products[-1]) < max(_bound([found], wanted, margin), known)


def deepened(ask: Ask, wanted: int, limit: int, margin: float) -> Found:
    """Every row that may be among the best ``wanted``; an answer has ``limit`` at most, 2
    or more.
    """
    kept: list[Found] = []
    pending = [(min(limit, 4 * asked(wanted, limit)), "", "")]
    while pending:
        count, low, high = pending.pop()
        found = ask(count, low, high)
        if is_complete(found, count, wanted, margin, _bound(kept, wanted, margin)):
            kept = _pruned([*kept, found], wanted, margin)
        elif count < limit:
            pending.append((min(limit, 4 * count), low, high))
        else:
            # All ids differ, so some are below the middle one, and it itself is not.
            middle = str(np.sort(found.ids)[max(1, len(found.ids) // 2)])
            pending += [(limit, middle, high), (limit, low, middle)]
    return joined(kept)


def joined(parts: Sequence[Found]) -> Found:
    """All rows of these, at least one part."""
    return Found(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.products for part in parts]),
        np.concatenate([part.vectors for part in parts]),
    )


def _bound(parts: Sequence[Found], wanted: int, margin: float) -> float:
    products: NDArray[np.float32] = np.concatenate(
        [np.empty(0, np.float32), *(part.products for part in parts)]
    )
    if wanted < 1 or len(products) < wanted:
        return -np.inf
    place = len(products) - wanted
    return float(np.partition(products, place)[place]) - margin


def _pruned(parts: Sequence[Found], wanted: int, margin: float) -> list[Found]:
    bound = _bound(parts, wanted, margin)
    every = joined(parts)
    good = every.products >= bound
    return [Found(every.ids[good], every.products[good], every.vectors[good])]
