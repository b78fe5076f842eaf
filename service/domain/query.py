"""Searches: what is asked, what is answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from resight.errors import FailedPrecondition, InvalidArgument
from service.domain.crop import Crop, CropFilter
from service.domain.own_camera import OwnCameraRule

__all__ = [
    "Match",
    "QueryEmbedding",
    "SearchAnswer",
    "SearchMode",
    "SearchQuery",
    "min_score",
    "top_k",
    "unit_vector",
]

DEFAULT_TOP_K = 10


class SearchMode(Enum):
    """How the rows were compared; both are exact."""

    EXACT_SCAN = "exact_scan"
    EXACT_GATHER = "exact_gather"


@dataclass(frozen=True, slots=True)
class QueryEmbedding:
    """A vector made by the caller: float32 values and the version of the encoder it names."""

    values: Sequence[float] | NDArray[np.float32]
    model_version: str


@dataclass(frozen=True, slots=True)
class SearchQuery:
    """One query: exactly one of ``image``, ``crop_id`` and ``embedding``.

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
    filter: CropFilter = field(default_factory=CropFilter)
    own_camera: OwnCameraRule = field(default_factory=OwnCameraRule)
    deadline: float | None = None


class Match(NamedTuple):
    """One match, its cosine similarity to the query, -1 to 1, and what the bundle's calibration
    makes of it; None without one.
    """

    crop: Crop
    score: float
    probability: float | None = None


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


def unit_vector(
    embedding: QueryEmbedding, *, dimension: int, model_version: str
) -> NDArray[np.float32]:
    """The caller's vector as float32 (dimension,) of unit L2 norm.

    A finite vector of any other length is normalised: cosine similarity knows no length.

    Raises:
        FailedPrecondition: it names another model version, or none.
        InvalidArgument: wrong number of values, a value that is not finite, or all zeros.
    """
    if embedding.model_version != model_version:
        raise FailedPrecondition(
            f"embedding.model_version is {embedding.model_version[:80]!r} but the gallery's live "
            f"encoder is {model_version!r}; vectors of two versions are never comparable: embed "
            "the image again with EmbedService.Embed",
            field="embedding.model_version",
            reason="MODEL_VERSION_MISMATCH",
        )
    values = np.asarray(embedding.values, dtype=np.float32)
    if values.shape != (dimension,):
        raise InvalidArgument(
            f"embedding.values has {values.size} values; the live encoder has {dimension}",
            field="embedding.values",
        )
    wide = values.astype(np.float64)
    norm = float(np.linalg.norm(wide))
    if not math.isfinite(norm) or norm == 0.0:
        raise InvalidArgument(
            "embedding.values contains NaN, infinity or nothing but zeros; send a unit vector",
            field="embedding.values",
        )
    return (wide / norm).astype(np.float32)
