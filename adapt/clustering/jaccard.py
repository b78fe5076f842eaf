"""Exact sparse k-reciprocal Jaccard distance.

Equations (Zhong et al., CVPR 2017, equation 10, with rows of V that sum to 1; V as in
:mod:`adapt.clustering.reciprocal`, or camera-aware as in :mod:`adapt.clustering.camera_aware`)::

    s(i, j) = sum_k min(V_ik, V_jk)
    J(i, j) = 1 - s / (2 - s)

For each row the inverted lists of its non-zero columns are walked and s is summed for the rows met
there; a pair is written down only if J <= max_distance. Memory is O(N k); nothing is N x N.

Intended deviations: V and s are float64, J is rounded to float32 once at the end and compared with
the radius in float32, so that the order of summation cannot decide whether a pair is close; only
pairs within the radius exist. No blend with the original distance.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads
from adapt.clustering.camera_aware import encode_by_camera, expansion_lists
from adapt.clustering.graph import DistanceGraph, StreamedDistances, UpperBlock, symmetric
from adapt.clustering.inverted import InvertedRows
from adapt.clustering.neighbours import CameraNeighbours, Neighbours
from adapt.clustering.reciprocal import Convention, encode
from adapt.clustering.sparse_rows import SparseRows, expand
from resight.errors import InvalidArgument

__all__ = ["camera_jaccard_rows", "close_pairs", "jaccard_graph", "jaccard_rows"]

# Pairs (each counted once) that are held in memory before the graph is streamed instead.
_PAIRS_PER_ROW = 256
_LEAST_PAIRS = 1 << 22


def jaccard_rows(
    neighbours: Neighbours,
    *,
    features: NDArray[np.float32],
    k1: int = 30,
    k2: int = 6,
    convention: Convention = "released",
    threads: int | None = None,
) -> SparseRows:
    """V after local query expansion; rows sum to 1.

    Args:
        neighbours: of ``features``, with the columns that ``k1`` asks for (or all N).
        features: float32 (N, D) unit rows.
        k1, k2, convention: see :mod:`adapt.clustering.reciprocal`.
        threads: default every core.

    Raises:
        InvalidArgument: ``k1`` or ``k2`` below 1, an unknown convention.
    """
    for name, value in (("k1", k1), ("k2", k2)):
        if value < 1:
            raise InvalidArgument(f"{name}: is {value}; it must be at least 1", field=name)
    threads = threads or available_threads()
    encoded = encode(neighbours, features, k1=k1, convention=convention, threads=threads)
    return expand(encoded, neighbours.indices[:, :k2], threads=threads)


def camera_jaccard_rows(
    neighbours: CameraNeighbours,
    *,
    k1_intra: int = 5,
    k1_inter: int = 20,
    k2_intra: int = 2,
    k2_inter: int = 4,
    convention: Convention = "released",
    threads: int | None = None,
) -> SparseRows:
    """Camera-aware V after local query expansion; rows sum to 1.

    Args:
        neighbours: with the columns of ``camera_columns`` (or all there are).
        k1_intra, k1_inter, k2_intra, k2_inter, convention: see
            :mod:`adapt.clustering.camera_aware`.
        threads: default every core.
    """
    threads = threads or available_threads()
    encoded = encode_by_camera(
        neighbours, k1_intra=k1_intra, k1_inter=k1_inter, convention=convention, threads=threads
    )
    lists = expansion_lists(neighbours, k2_intra=k2_intra, k2_inter=k2_inter)
    return expand(encoded, lists, threads=threads)


def jaccard_graph(
    neighbours: Neighbours,
    *,
    features: NDArray[np.float32],
    max_distance: float,
    k1: int = 30,
    k2: int = 6,
    convention: Convention = "released",
    threads: int | None = None,
    max_pairs: int | None = None,
) -> DistanceGraph:
    """Every pair with J <= ``max_distance``.

    Args:
        neighbours, features, k1, k2, convention, threads: see :func:`jaccard_rows`.
        max_distance: radius, 0 < max_distance < 1 (at 1 every pair of rows would be present).
        max_pairs: pairs to hold at most, default 256 N and at least 4 million. Where there are
            more (thousands of equal crops), the graph is streamed: the same pairs, computed anew
            each time they are read.

    Returns:
        SparseDistances, or StreamedDistances where the pairs are too many to hold.

    Raises:
        InvalidArgument: see above.
    """
    threads = threads or available_threads()
    encoded = jaccard_rows(
        neighbours, features=features, k1=k1, k2=k2, convention=convention, threads=threads
    )
    return close_pairs(encoded, max_distance=max_distance, threads=threads, max_pairs=max_pairs)


def close_pairs(
    encoded: SparseRows,
    *,
    max_distance: float,
    threads: int | None = None,
    max_pairs: int | None = None,
) -> DistanceGraph:
    """Every pair of the rows of V with J <= ``max_distance``; see :func:`jaccard_graph`."""
    if not 0.0 < max_distance < 1.0:
        raise InvalidArgument(
            f"max_distance: is {max_distance}; a Jaccard radius lies between 0 and 1",
            field="max_distance",
        )
    inverted = InvertedRows.of(
        encoded, max_distance=max_distance, threads=threads or available_threads()
    )
    limit = max_pairs if max_pairs is not None else max(_LEAST_PAIRS, _PAIRS_PER_ROW * encoded.rows)
    held: list[UpperBlock] = []
    pairs = 0
    for block in inverted.blocks():
        held.append(block)
        pairs += block.indices.size
        if pairs > limit:
            return StreamedDistances(encoded.rows, max_distance, inverted.blocks)
    return symmetric(held, encoded.rows, max_distance)
