"""Searches: what is asked, what is answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from resight.errors import InvalidArgument
from service.domain.crop import Crop, CropFilter
from service.domain.examples import Example, Fusion
from service.domain.groups import GroupBy
from service.domain.own_camera import OwnCameraRule
from service.domain.query_embedding import QueryEmbedding
from service.domain.rerank import Rerank

__all__ = [
    "Match",
    "QueryEmbedding",
    "SearchAnswer",
    "SearchMode",
    "SearchQuery",
    "min_score",
    "top_k",
]

DEFAULT_TOP_K = 10


class SearchMode(Enum):
    """How the rows were compared; both are exact."""

    EXACT_SCAN = "exact_scan"
    EXACT_GATHER = "exact_gather"


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One query: at most one of ``image``, ``crop_id`` and ``embedding``, and more examples.

    ``deadline`` is a moment of ``time.monotonic()``; None leaves it open.
    """

    gallery: str = ""
    image: bytes | None = None
    crop_id: str | None = None
    embedding: QueryEmbedding | None = None
    top_k: int | None = None
    min_score: float | None = None
    min_probability: float | None = None
    page_token: str = ""
    positives: Sequence[Example] = ()
    negatives: Sequence[Example] = ()
    fusion: Fusion = Fusion.MEAN
    group_by: GroupBy = GroupBy.NOTHING
    group_size: int | None = None
    rerank: Rerank | None = None
    filter: CropFilter = field(default_factory=CropFilter)
    own_camera: OwnCameraRule = field(default_factory=OwnCameraRule)
    deadline: float | None = None


class Match(NamedTuple):
    """One match, its cosine similarity to the query, -1 to 1, and what the bundle's calibration
    makes of it; None without one. Re-ranked, the distance it was ranked by. Where a gallery answers
    with two models, the version of the one that gave the score; else empty.
    """

    crop: Crop
    score: float
    probability: float | None = None
    rerank_distance: float | None = None
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Matches best first, ties by crop id; with which model, how, over how many rows, and for how
    long a committed crop has been waiting for the index.
    """

    matches: Sequence[Match]
    model_version: str
    mode: SearchMode
    rows_scanned: int
    rows_total: int
    index_lag_seconds: float = 0.0
    next_page_token: str = ""
    groups: Sequence[Sequence[Match]] = ()


def top_k(value: int | None, *, limit: int) -> int:
    """Number of matches wanted: 10 when None.

    Raises:
        InvalidArgument: below 1 or above ``limit``.
    """
    if value is None:
        return min(DEFAULT_TOP_K, limit)
    if not 1 <= value <= limit:
        raise InvalidArgument(
            f"top_k {value} is out of range; send 1 to {limit} (limits.max_top_k), or leave it "
            f"unset for {DEFAULT_TOP_K}",
            field="top_k",
        )
    return value


def min_score(value: float | None) -> float | None:
    """Lowest score wanted.

    Raises:
        InvalidArgument: NaN, or outside -1 to 1.
    """
    if value is not None and not (math.isfinite(value) and -1.0 <= value <= 1.0):
        raise InvalidArgument(
            f"min_score {value} is not a cosine similarity; send -1 to 1, or leave it unset",
            field="min_score",
        )
    return value
