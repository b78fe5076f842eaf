"""Camera-aware encodings: CA-Jaccard (Chen et al., CVPR 2024).

Equations; F_same(i, k) are the first k columns of i's ranking of its own camera, i itself first,
F_other(i, k) those of its ranking of all other cameras::

    R_same(i)  = { j in F_same(i, k1_intra)  : i in F_same(j, k1_intra) }
    R_other(i) = { j in F_other(i, k1_inter) : i in F_other(j, k1_inter) }
    R(i)       = R_same(i) united with R_other(i)
    V[i, j]    = exp(2 sim(i, j) - 2) / sum over R(i),    j in R(i)
    V[i]      := mean of V[j] over F_same(i, k2_intra) and F_other(i, k2_inter)

and from V the Jaccard distance of :mod:`adapt.clustering.jaccard`. The sets are not expanded by
those of their members, unlike in :mod:`adapt.clustering.reciprocal`.

Columns of F: "released" counts as the released code slices, ``k1_intra + 1`` (the row itself among
them) and ``k1_inter + 1`` (the row is never in this list, so one more than the name says). "zhong"
counts neighbours besides the row itself in both: ``k1_intra + 1`` and ``k1_inter``. The k2 are
columns in both.

Intended deviations: a camera with fewer rows than asked for gives the rows it has (the released
code goes on with rows of the other list); the released training script averages over 3 and 3
columns in its first epoch whatever was asked, here every epoch is as asked; sums in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.kernel import kernel
from adapt.clustering.neighbours import CameraNeighbours
from adapt.clustering.reciprocal import Convention, mutual
from adapt.clustering.sparse_rows import EncodedBlock, SparseRows, assemble

__all__ = ["camera_columns", "encode_by_camera", "expansion_lists"]


def camera_columns(k1_intra: int, k1_inter: int, convention: Convention) -> tuple[int, int]:
    """Columns of the two neighbour lists that ``k1_intra`` and ``k1_inter`` stand for."""
    return k1_intra + 1, k1_inter + (convention == "released")


def encode_by_camera(
    neighbours: CameraNeighbours,
    *,
    k1_intra: int,
    k1_inter: int,
    convention: Convention,
    threads: int,
) -> SparseRows:
    """V before local query expansion.

    Args:
        neighbours: at least the columns of :func:`camera_columns`, or all there are.
        k1_intra, k1_inter: sizes of the forward sets.
        convention: how they count, see the module.
        threads: to run on.
    """
    same, other = neighbours.same, neighbours.other
    widths = camera_columns(k1_intra, k1_inter, convention)
    same_width = min(widths[0], same.indices.shape[1])
    other_width = min(widths[1], other.indices.shape[1])

    def block(start: int, stop: int) -> EncodedBlock:
        return EncodedBlock(
            *_encode_rows(
                same.indices, same.similarities, same_width,
                other.indices, other.similarities, other_width,
                start, stop,
            )
        )  # fmt: skip

    return assemble(block, len(same), threads)


def expansion_lists(
    neighbours: CameraNeighbours, *, k2_intra: int, k2_inter: int
) -> NDArray[np.int32]:
    """The rows that each row is averaged over, int32 (N, w), -1 where there are fewer."""
    return np.concatenate(
        [neighbours.same.indices[:, :k2_intra], neighbours.other.indices[:, :k2_inter]], axis=1
    )


@kernel
def _encode_rows(
    same: NDArray[np.int32],
    same_similarities: NDArray[np.float64],
    same_width: int,
    other: NDArray[np.int32],
    other_similarities: NDArray[np.float64],
    other_width: int,
    start: int,
    stop: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    counts = np.zeros(stop - start, dtype=np.int64)
    capacity = (stop - start) * (same_width + other_width)
    columns = np.empty(capacity, dtype=np.int32)
    values = np.empty(capacity, dtype=np.float64)
    at = 0
    for i in range(start, stop):
        first = at
        total = 0.0
        for part in range(2):
            lists = same if part == 0 else other
            cosines = same_similarities if part == 0 else other_similarities
            width = same_width if part == 0 else other_width
            for p in range(width):
                j = lists[i, p]
                if j >= 0 and mutual(lists, i, j, width):
                    columns[at] = j
                    values[at] = np.exp(2.0 * cosines[i, p] - 2.0)
                    total += values[at]
                    at += 1
        for m in range(first, at):
            values[m] /= total
        counts[i - start] = at - first
    return counts, columns[:at].copy(), values[:at].copy()
