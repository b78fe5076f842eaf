"""How far two encoders rank the same crops alike: what a search notices of a change.

For query q, s_i are the reference's similarities to the gallery crops, t_i the other's. With
w_i(s) the share of tie-breakings that put crop i among the first d,

    w_i(s) = 1 if s_i > s_(d);  0 if s_i < s_(d);
             (d - #{j: s_j > s_(d)}) / #{j: s_j = s_(d)} if s_i = s_(d)

    overlap     = 1/d  sum_i min(w_i(s), w_i(t))
    first       = the same at d = 1
    correlation = Spearman's, with mean ranks for ties, over the m crops nearest by s

each a mean over the queries. Equal rankings give 1 however they tie, and an encoder that gives all
crops one vector gives what guessing gives. Similarities are float64, rounded to multiples of 2^-20,
so that rounding noise makes and breaks no ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.errors import InvalidArgument, Refused
from resight.v1 import bundle_pb2

__all__ = ["GRAPH_BOUNDS", "Embedded", "RankBounds", "RankFigures", "rank_agreement"]

_SNAP = 2.0**20
_BLOCK_CELLS = 1 << 21


@dataclass(frozen=True)
class Embedded:
    """Queries and gallery as one encoder sees them; for a mapped gallery, of two encoders.

    Attributes:
        queries: float (Q, D), unit length.
        gallery: float (G, D), unit length.
    """

    queries: NDArray[np.floating]
    gallery: NDArray[np.floating]


@dataclass(frozen=True)
class RankBounds:
    """Lowest figures at which something is admitted.

    Attributes:
        overlap: Of the first ten places.
        correlation: Over the hundred nearest crops.
    """

    overlap: float
    correlation: float


GRAPH_BOUNDS = RankBounds(overlap=0.95, correlation=0.98)
"""What a graph in another precision must reach; fp16 gives 0.995 and 0.9996 on real crops."""


@dataclass(frozen=True)
class RankFigures:
    """Means over the queries.

    Attributes:
        overlap: Share of the first ``depth`` places in common.
        first: Share of queries with the same crop first.
        correlation: Spearman's rank correlation over the nearest crops.
        queries: Crops ranked for.
        gallery: Crops ranked.
        depth: Places compared.
    """

    overlap: float
    first: float
    correlation: float
    queries: int
    gallery: int
    depth: int

    def admit(self, what: str, bounds: RankBounds) -> bundle_pb2.RankAgreement:
        """The figures as the manifest holds them.

        Args:
            what: Path of the attachment.
            bounds: What it must reach.

        Raises:
            Refused: It falls short; the message says by how much.
        """
        pairs = (
            ("top-10 overlap", self.overlap, bounds.overlap),
            ("rank correlation", self.correlation, bounds.correlation),
        )
        short = [
            f"{name} {found:.4f} is {bound - found:.4f} below {bound:g}"
            for name, found, bound in pairs
            if not found >= bound
        ]
        if short:
            raise Refused(
                f"{what} ranks {self.gallery} crops otherwise than the encoder: {'; '.join(short)};"
                " do without it",
                field=what,
                reason="RANK_AGREEMENT",
            )
        return bundle_pb2.RankAgreement(
            path=what,
            queries=self.queries,
            gallery=self.gallery,
            depth=self.depth,
            overlap=self.overlap,
            first=self.first,
            correlation=self.correlation,
            min_overlap=bounds.overlap,
            min_correlation=bounds.correlation,
        )


def rank_agreement(
    reference: Embedded,
    other: Embedded,
    *,
    query_groups: NDArray[np.integer] | None = None,
    gallery_groups: NDArray[np.integer] | None = None,
    depth: int = 10,
    nearest: int = 100,
) -> RankFigures:
    """Compares two rankings of one gallery for the same queries.

    Args:
        reference: As the encoder sees them.
        other: As the other does; the widths of the two may differ.
        query_groups: (Q,) codes; gallery crops of the query's own group, itself or its track say,
            are left out of its ranking.
        gallery_groups: (G,) codes.
        depth: Places compared.
        nearest: Crops over which ranks are correlated.

    Raises:
        InvalidArgument: Shapes that do not fit, a vector that is not finite, or fewer than
            ``depth`` crops left for a query.
    """
    for name, embedded in (("reference", reference), ("other", other)):
        shapes = (embedded.queries.shape, embedded.gallery.shape)
        if [s[0] for s in shapes] != [len(reference.queries), len(reference.gallery)] or (
            shapes[0][1] != shapes[1][1]
        ):
            raise InvalidArgument(f"{name}: shapes {shapes} do not fit", field=name)
        if not (np.isfinite(embedded.queries).all() and np.isfinite(embedded.gallery).all()):
            raise InvalidArgument(f"{name}: a vector is not finite", field=name)
    queries, gallery = len(reference.queries), len(reference.gallery)
    if not queries:
        raise InvalidArgument("reference: no query to rank for", field="reference")
    block = max(1, _BLOCK_CELLS // max(1, gallery))
    figures = []
    for start in range(0, queries, block):
        part = slice(start, start + block)
        s, t = _scores(reference, part), _scores(other, part)
        if query_groups is not None and gallery_groups is not None:
            own = query_groups[part, None] == gallery_groups[None]
            s[own] = t[own] = -np.inf
        if np.isfinite(s).sum(axis=1).min() < depth:
            raise InvalidArgument(
                f"gallery: a query has fewer than {depth} crops to rank; give more crops",
                field="gallery",
            )
        figures.append(
            [_overlap(s, t, depth), _overlap(s, t, 1), _correlation(s, t, min(nearest, gallery))]
        )
    overlap, first, correlation = (
        float(np.concatenate([block[i] for block in figures]).mean()) for i in range(3)
    )
    return RankFigures(overlap, first, correlation, queries, gallery, depth)


def _scores(embedded: Embedded, part: slice) -> NDArray[np.float64]:
    scores = embedded.queries[part].astype(np.float64) @ embedded.gallery.astype(np.float64).T
    return np.rint(scores * _SNAP)


def _membership(scores: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
    last = -np.partition(-scores, depth - 1, axis=1)[:, depth - 1, None]
    above, tied = scores > last, scores == last
    places = depth - above.sum(axis=1, keepdims=True)
    share: NDArray[np.float64] = above + tied * places / tied.sum(axis=1, keepdims=True)
    return share


def _overlap(s: NDArray[np.float64], t: NDArray[np.float64], depth: int) -> NDArray[np.float64]:
    common: NDArray[np.float64] = np.minimum(_membership(s, depth), _membership(t, depth))
    return np.asarray(common.sum(axis=1) / depth)


def _correlation(
    s: NDArray[np.float64], t: NDArray[np.float64], nearest: int
) -> NDArray[np.float64]:
    order = np.argsort(-s, axis=1, kind="stable")[:, :nearest]
    result = np.empty(len(s))
    for row, columns in enumerate(order):
        kept = columns[np.isfinite(s[row, columns])]
        result[row] = _spearman(s[row, kept], t[row, kept])
    return result


def _spearman(s: NDArray[np.float64], t: NDArray[np.float64]) -> float:
    a, b = _ranks(s), _ranks(t)
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    if not spread:  # one of them ranks nothing: alike only if neither does
        return float(not (a.any() or b.any()))
    return float(a @ b) / spread


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    mean: NDArray[np.float64] = ends - (count - 1) / 2
    return mean[place]
