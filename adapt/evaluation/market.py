"""Mean average precision and CMC by the Market-1501 protocol.

Zheng et al., Scalable Person Re-identification: A Benchmark, ICCV 2015, section 5, single query::

    gallery of a query  = gallery without junk (identity -1) and without crops of the query's
                          identity seen by the query's camera
    AP                  = mean over the matches of (matches up to it) / (rank of it)
    mAP                 = mean AP over the queries that have a match
    CMC(r)              = share of those queries whose first match has rank <= r

AP is the step-wise sum, as in most published code; the original toolbox integrates by trapezoids.
Similarities are float64 products rounded to a multiple of 2^-40 and ties are broken by gallery
index, so that the figures do not depend on how the queries are cut into blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resight.errors import FailedPrecondition, InvalidArgument

__all__ = ["JUNK", "RankingMetrics", "evaluate_ranking"]

JUNK = -1
_RANKS = 50
_BLOCK_CELLS = 1 << 23
_COLUMNS = 4096
_SNAP = 2.0**40


@dataclass(frozen=True)
class RankingMetrics:
    """How well the right crops were ranked.

    Attributes:
        map: Mean average precision, a fraction.
        cmc: float64 (50,): share of queries with a match among the first 1, 2, ... ranks.
        queries: Queries with a match; the others do not count.
        gallery: Gallery crops, junk left out.
        queries_without_identity: Queries whose identity the gallery does not hold.
        queries_without_match: Queries whose matches are all from the query's own camera.
    """

    map: float
    cmc: NDArray[np.float64]
    queries: int
    gallery: int
    queries_without_identity: int = 0
    queries_without_match: int = 0

    def rank(self, r: int) -> float:
        """CMC at rank ``r``, 1 to 50."""
        return float(self.cmc[r - 1])


def evaluate_ranking(
    query: NDArray[np.floating],
    gallery: NDArray[np.floating],
    q_ids: ArrayLike,
    g_ids: ArrayLike,
    q_cams: ArrayLike | None,
    g_cams: ArrayLike | None,
    *,
    block: int | None = None,
    advance: Callable[[int], object] | None = None,
) -> RankingMetrics:
    """Rank the gallery for every query by the inner product and score the ranking.

    Args:
        query: float (Q, D), rows of unit length for cosine.
        gallery: float (G, D).
        q_ids, g_ids: integer identities (Q,) and (G,); -1 is junk.
        q_cams, g_cams: integer cameras (Q,) and (G,); None for both to rank crops of the query's
            own camera too.
        block: queries scored at once; default what keeps a block near 8 million scores.
        advance: called with the number of queries scored since its last call.

    Raises:
        InvalidArgument: shapes that do not fit.
        FailedPrecondition: no query has a match; the message says why.
    """
    identities = _Column.of("ids", q_ids, g_ids, len(query), len(gallery))
    cameras = _cameras(q_cams, g_cams, len(query), len(gallery))
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise InvalidArgument(
            f"query {query.shape} and gallery {gallery.shape} must be matrices of equal width",
            field="gallery",
        )
    kept = np.flatnonzero(identities.gallery != JUNK)
    asked = np.flatnonzero(identities.query != JUNK)
    gallery, identities = gallery[kept], identities.part(asked, kept)
    cameras = cameras.part(asked, kept) if cameras is not None else None
    block = block or max(1, _BLOCK_CELLS // max(1, kept.size))
    precision = np.full(asked.size, np.nan)
    first = np.zeros(asked.size, dtype=np.int64)
    for start in range(0, asked.size, block):
        part = slice(start, start + block)
        order = _ranking(query[asked[part]], gallery)
        match = identities.gallery[order] == identities.query[part, None]
        own = np.zeros_like(match)
        if cameras is not None:
            own = match & (cameras.gallery[order] == cameras.query[part, None])
        precision[part], first[part] = _scores(match & ~own, ~own)
        if advance is not None:
            advance(order.shape[0])
    return _metrics(precision, first, identities)


@dataclass(frozen=True)
class _Column:
    query: NDArray[np.int64]
    gallery: NDArray[np.int64]

    @classmethod
    def of(
        cls, name: str, query: ArrayLike, gallery: ArrayLike, queries: int, crops: int
    ) -> _Column:
        columns = []
        for side, values, count in (("q", query, queries), ("g", gallery, crops)):
            column = np.asarray(values)
            if column.shape != (count,) or (count and column.dtype.kind not in "iu"):
                raise InvalidArgument(
                    f"{side}_{name}: is {column.dtype} {column.shape}; give {count} integers",
                    field=f"{side}_{name}",
                )
            columns.append(column.astype(np.int64))
        return cls(*columns)

    def part(self, query: NDArray[np.int64], gallery: NDArray[np.int64]) -> _Column:
        return _Column(self.query[query], self.gallery[gallery])


def _cameras(
    query: ArrayLike | None, gallery: ArrayLike | None, queries: int, crops: int
) -> _Column | None:
    if query is None and gallery is None:
        return None
    if query is None or gallery is None:
        raise InvalidArgument(
            "q_cams and g_cams: one of them is missing; give both, or neither to ignore cameras",
            field="q_cams" if query is None else "g_cams",
        )
    return _Column.of("cams", query, gallery, queries, crops)


def _ranking(query: NDArray[np.floating], gallery: NDArray[np.floating]) -> NDArray[np.int64]:
    """Gallery indices for each query, most similar first, ties by index."""
    rows = query.astype(np.float64)
    scores = np.empty((len(query), len(gallery)), dtype=np.float64)
    for start in range(0, len(gallery), _COLUMNS):
        columns = gallery[start : start + _COLUMNS].astype(np.float64)
        np.matmul(rows, columns.T, out=scores[:, start : start + _COLUMNS])
    scores *= -_SNAP
    np.rint(scores, out=scores)
    return np.argsort(scores, axis=1, kind="stable")


def _scores(
    match: NDArray[np.bool_], kept: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """AP (NaN without a match) and rank of the first match, for rows of a ranking."""
    row, column = np.nonzero(match)
    rank = np.cumsum(kept, axis=1)[row, column]
    found = np.cumsum(match, axis=1)[row, column]
    total = match.sum(axis=1)
    with np.errstate(invalid="ignore"):
        precision = np.bincount(row, found / rank, minlength=len(match)) / total
    first = np.zeros(len(match), dtype=np.int64)
    first[row[found == 1]] = rank[found == 1]
    return precision, first


def _metrics(
    precision: NDArray[np.float64], first: NDArray[np.int64], identities: _Column
) -> RankingMetrics:
    valid = ~np.isnan(precision)
    known = np.isin(identities.query, identities.gallery)
    strangers = int(np.count_nonzero(~known))
    own_camera = int(np.count_nonzero(known & ~valid))
    if not valid.any():
        raise FailedPrecondition(
            _nothing_to_score(strangers, own_camera, identities), field="gallery"
        )
    ranks = np.bincount(np.minimum(first[valid], _RANKS + 1), minlength=_RANKS + 2)
    return RankingMetrics(
        map=float(precision[valid].mean()),
        cmc=np.cumsum(ranks[1 : _RANKS + 1]) / np.count_nonzero(valid),
        queries=int(np.count_nonzero(valid)),
        gallery=int(identities.gallery.size),
        queries_without_identity=strangers,
        queries_without_match=own_camera,
    )


def _nothing_to_score(strangers: int, own_camera: int, identities: _Column) -> str:
    queries, crops = identities.query.size, identities.gallery.size
    if not queries or not crops:
        return f"nothing to rank: {queries} queries and {crops} gallery crops besides junk (-1)"
    if not own_camera:
        return (
            f"none of the {queries} queries' identities appears in the gallery; query and gallery "
            "must show the same people under the same identities"
        )
    return (
        f"no query has a match: for {own_camera} queries every gallery crop of the person is from "
        f"the query's own camera, which the protocol leaves out, and {strangers} queries' "
        "identities are not in the gallery; if the camera ids mean nothing, ignore them "
        "(--ignore-cameras)"
    )
