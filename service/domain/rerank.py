"""Re-ranking of the best candidates."""

from __future__ import annotations

from dataclasses import dataclass

from resight.errors import InvalidArgument

__all__ = ["CheckedRerank", "Rerank", "checked_rerank"]

MAX_NEIGHBOURS = 100


@dataclass(frozen=True, slots=True)
class Rerank:
    """How the best candidates are ranked again; None takes the published value.

    Args:
        candidates: How many of the best are ranked again; None: 100, at least the matches wanted.
        k1: Neighbours of a crop that must have it among theirs; 20.
        k2: Crops, itself included, whose encodings are averaged; 6.
        original_weight: Share of the original distance, 0 to 1; 0.3.
    """

    candidates: int | None = None
    k1: int | None = None
    k2: int | None = None
    original_weight: float | None = None


@dataclass(frozen=True, slots=True)
class CheckedRerank:
    """As Rerank, with nothing left open."""

    candidates: int
    k1: int
    k2: int
    original_weight: float


def checked_rerank(
    asked: Rerank | None, *, top_k: int, grouped: bool, page_token: str, limit: int
) -> CheckedRerank | None:
    """The re-ranking asked for; None for none.

    Args:
        asked: As the caller sent it.
        top_k: Matches wanted.
        grouped: Whether matches are grouped, which cannot go together.
        page_token: Must be empty.
        limit: Most candidates.

    Raises:
        InvalidArgument: a value out of range, or beside what it cannot go together with.
    """
    if asked is None:
        return None
    if grouped:
        raise InvalidArgument(
            "rerank cannot go together with group_by; send one of them", field="rerank"
        )
    if page_token:
        raise InvalidArgument(
            "page_token has no effect with rerank: its candidates are one page; raise top_k",
            field="page_token",
        )
    candidates = asked.candidates
    if candidates is None:
        candidates = min(max(100, top_k), limit)
    if not top_k <= candidates <= limit:
        raise InvalidArgument(
            f"rerank.candidates {candidates} is out of range; send {top_k} (top_k) to {limit} "
            "(limits.max_rerank)",
            field="rerank.candidates",
        )
    k1 = 20 if asked.k1 is None else asked.k1
    if not 1 <= k1 <= MAX_NEIGHBOURS:
        raise InvalidArgument(
            f"rerank.k1 {k1} is out of range; send 1 to {MAX_NEIGHBOURS}", field="rerank.k1"
        )
    k2 = min(6, k1) if asked.k2 is None else asked.k2
    if not 1 <= k2 <= k1:
        raise InvalidArgument(
            f"rerank.k2 {k2} is out of range; send 1 to k1 ({k1})", field="rerank.k2"
        )
    weight = 0.3 if asked.original_weight is None else asked.original_weight
    if not 0.0 <= weight <= 1.0:
        raise InvalidArgument(
            f"rerank.original_weight {weight} is out of range; send 0 to 1",
            field="rerank.original_weight",
        )
    return CheckedRerank(candidates, k1, k2, weight)
