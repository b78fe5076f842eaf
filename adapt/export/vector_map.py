"""A map from an older encoder's embeddings to a new one's, for galleries without their crops.

For unit vectors x_i of the old and y_i of the new encoder on the same N crops, centred,

    U S V^T = X^T Y                         (thin singular value decomposition)
    W_0 = (tr S / ||X||^2) U V^T            scaled orthogonal Procrustes (Schoenemann 1966)
    W_l = (X^T X + l v I)^-1 (X^T Y + l v W_0),    v = ||X||^2 / D_old

    map(x) = z / ||z||,    z = (x - mean x) W_l + mean y

W_l minimises ||X W - Y||^2 + l v ||W - W_0||^2: least squares at l = 0, the orthogonal map as l
grows. The dimensions may differ; W_0 then keeps the subspace that the two share best.

Crops are split by group (track, or cluster) into three parts: W is solved on the first, l chosen by
the top-10 overlap on the second, and the map admitted or refused on the third, by how new queries
rank the mapped old vectors in place of the new ones.

Intended deviations: the pull towards W_0 in place of towards zero, since a night has few crops for
D_old x D_new weights, and a map that shrinks unseen directions would hide them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.bundle.attachments import Attachments
from resight.bundle.rank_agreement import Embedded, RankBounds, RankFigures, rank_agreement
from resight.bundle.vector_map import VectorMap
from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2

__all__ = ["MAP_BOUNDS", "FittedMap", "fit_vector_map"]

MAP_BOUNDS = RankBounds(overlap=0.4, correlation=0.5)
"""What a map must reach on crops held out.

On Market-1501 (docs/bundle.md) an overlap of 0.63 went with 0.92 of the new encoder's mAP, one of
0.45 with 0.79, in both cases more than the old encoder's own.
"""

PULLS = (0.001, 0.01, 0.1, 1.0, 10.0, float("inf"))
_MIN_GROUPS = 30
_MAX_QUERIES = 256
_SHARES = (0.7, 0.15)


@dataclass(frozen=True)
class FittedMap:
    """A map and how it fared on crops held out.

    Attributes:
        map: From old to new.
        pull: The chosen l.
        pairs: Crops it was solved on.
        figures: Of new queries that rank mapped old vectors, against new ones.
    """

    map: VectorMap
    pull: float
    pairs: int
    figures: RankFigures

    def attachment(self, from_version: str, bounds: RankBounds = MAP_BOUNDS) -> Attachments:
        """The map ready to be attached to the new encoder's bundle.

        Args:
            from_version: Model version of the old encoder.
            bounds: What it must reach.

        Raises:
            Refused: It falls short; says by how much.
        """
        path = f"maps/{from_version}.f32"
        return Attachments(
            files={path: self.map.to_bytes()},
            rank_agreement=[self.figures.admit(path, bounds)],
            vector_maps=[
                bundle_pb2.VectorMap(
                    path=path,
                    from_version=from_version,
                    from_dimension=self.map.matrix.shape[0],
                    pairs=self.pairs,
                    regularisation=self.pull,
                )
            ],
        )


def fit_vector_map(
    old: NDArray[np.floating],
    new: NDArray[np.floating],
    *,
    groups: NDArray[np.integer] | None = None,
    seed: int = 0,
) -> FittedMap:
    """Fits a map on the embeddings of the same crops by two encoders.

    Args:
        old: float (N, D_old), unit length.
        new: float (N, D_new), unit length.
        groups: (N,) codes of what must not be split between fit and test: tracks or clusters.
            Without them near copies of fitted crops are tested too, and the figures flatter.
        seed: Of the split.

    Raises:
        InvalidArgument: Shapes that do not fit, vectors that are not finite, fewer than 30 groups,
            or a part with too few crops to rank.
    """
    if old.ndim != 2 or new.ndim != 2 or len(old) != len(new):
        raise InvalidArgument(f"old {old.shape} and new {new.shape} do not fit", field="old")
    if not (np.isfinite(old).all() and np.isfinite(new).all()):
        raise InvalidArgument("old, new: a vector is not finite", field="old")
    codes = np.arange(len(old)) if groups is None else np.asarray(groups)
    fit, choose, test = _split(codes, seed)
    solved = _solutions(old[fit].astype(np.float64), new[fit].astype(np.float64))
    candidates = [
        (_figures(candidate, old[choose], new[choose], codes[choose]).overlap, pull, candidate)
        for pull, candidate in solved
    ]
    _, pull, chosen = max(candidates, key=lambda entry: entry[0])
    figures = _figures(chosen, old[test], new[test], codes[test])
    return FittedMap(chosen, pull, len(fit), figures)


def _split(codes: NDArray[np.integer], seed: int) -> list[NDArray[np.int64]]:
    names, place = np.unique(codes, return_inverse=True)
    if len(names) < _MIN_GROUPS:
        raise InvalidArgument(
            f"groups: {len(names)}, and at least {_MIN_GROUPS} are needed to fit a map and test it",
            field="groups",
        )
    order = np.random.default_rng(seed).permutation(len(names))
    edges = np.cumsum([round(share * len(names)) for share in _SHARES])
    part = np.empty(len(names), np.int64)
    for number, members in enumerate(np.split(order, edges)):
        part[members] = number
    return [np.flatnonzero(part[place] == number) for number in range(3)]


def _solutions(x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[tuple[float, VectorMap]]:
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    x, y = x - mean_x, y - mean_y
    second, cross = x.T @ x, x.T @ y
    total = float(np.trace(second))
    u, s, vt = np.linalg.svd(cross, full_matrices=False)
    orthogonal = (s.sum() / total) * (u @ vt)
    # One decomposition serves every l: the matrix only shifts along its eigenvalues.
    values, vectors = np.linalg.eigh(second)
    for pull in PULLS:
        matrix = orthogonal
        if np.isfinite(pull):
            weight = pull * total / len(second)
            right = vectors.T @ (cross + weight * orthogonal)
            matrix = vectors @ (right / (values.clip(0) + weight)[:, None])
        yield (
            pull,
            VectorMap(matrix.astype(np.float32), (mean_y - mean_x @ matrix).astype(np.float32)),
        )


def _figures(
    candidate: VectorMap,
    old: NDArray[np.floating],
    new: NDArray[np.floating],
    codes: NDArray[np.integer],
) -> RankFigures:
    queries = np.linspace(0, len(new) - 1, min(len(new), _MAX_QUERIES)).astype(np.int64)
    return rank_agreement(
        Embedded(new[queries], new),
        Embedded(new[queries], candidate.apply(old)),
        query_groups=codes[queries],
        gallery_groups=codes,
    )
