"""k-reciprocal encodings as sparse rows.

Equations (Zhong et al., CVPR 2017, sections 3.2 to 3.4, as the released re-ID code computes them;
F(i, k) are the first k columns of i's neighbour list, the row itself included)::

    R(i, k)  = { j in F(i, k) : i in F(j, k) }
    R*(i)    = R(i, k1) united with R(c, k1/2) for every c in R(i, k1) with
               |R(c, k1/2) n R(i, k1)| > 2/3 |R(c, k1/2)|
    V[i, j]  = exp(2 sim(i, j) - 2) / sum over R*(i),     j in R*(i)
    V[i]    := mean of V[j] over the first k2 neighbours j of i       (``sparse_rows.expand``)

Columns of F: the paper's text has k1 neighbours besides the row itself ("zhong": k1 + 1 columns).
The released code searches k1 columns and slices k1 + 1 of them, which leaves k1 ("released"). In
both the half set has round(k1 / 2) + 1 columns, rounding half to even as numpy does.

Intended deviations: sums in float64 instead of float32 and float16; a row with fewer neighbours
than k1 uses those it has (the released code reads padding as the last row of the matrix).
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import row_blocks
from adapt.clustering.kernel import kernel
from adapt.clustering.neighbours import Neighbours
from adapt.clustering.similarity import similarity
from adapt.clustering.sparse_rows import EncodedBlock, SparseRows, assemble
from resight.errors import InvalidArgument

__all__ = ["Convention", "encode", "mutual", "neighbour_columns"]

Convention = Literal["released", "zhong"]


def neighbour_columns(k1: int, convention: Convention) -> int:
    """Columns of the neighbour list, the row itself included, that ``k1`` stands for."""
    if convention not in get_args(Convention):
        raise InvalidArgument(
            f"convention: is {convention!r}; choose one of {', '.join(get_args(Convention))}",
            field="convention",
        )
    return k1 + 1 if convention == "zhong" else k1


def encode(
    neighbours: Neighbours,
    features: NDArray[np.float32],
    *,
    k1: int,
    convention: Convention,
    threads: int,
) -> SparseRows:
    """V before local query expansion: row i is the softmax over R*(i).

    Args:
        neighbours: at least the columns of :func:`neighbour_columns`, or all N.
        features: float32 (N, D) unit rows: the expansion reaches rows outside the lists.
        k1: size of the forward set.
        convention: how ``k1`` counts, see the module.
        threads: to run on.
    """
    rows, available = neighbours.indices.shape
    width = min(neighbour_columns(k1, convention), available)
    half_width = min(round(k1 / 2) + 1, width)
    half = np.empty((rows, half_width), dtype=np.int32)
    half_counts = np.zeros(rows, dtype=np.int32)
    for start, stop in row_blocks(rows, 65536):
        _reciprocal(neighbours.indices, half_width, start, stop, half, half_counts)

    def block(start: int, stop: int) -> EncodedBlock:
        return EncodedBlock(
            *_encode_rows(
                features, neighbours.indices, neighbours.similarities, width, half, half_counts,
                start, stop,
            )
        )  # fmt: skip

    return assemble(block, rows, threads)


@kernel
def mutual(indices: NDArray[np.int32], i: int, j: int, width: int) -> bool:
    """Compiled: whether i is among the first ``width`` columns of j."""
    for p in range(width):  # noqa: SIM110 - any() over a generator does not compile
        if indices[j, p] == i:
            return True
    return False


@kernel
def _reciprocal(
    indices: NDArray[np.int32],
    width: int,
    start: int,
    stop: int,
    members: NDArray[np.int32],
    counts: NDArray[np.int32],
) -> None:
    for i in range(start, stop):
        for p in range(width):
            j = indices[i, p]
            if j >= 0 and mutual(indices, i, j, width):
                members[i, counts[i]] = j
                counts[i] += 1


@kernel
def _gather(
    i: int,
    indices: NDArray[np.int32],
    width: int,
    half: NDArray[np.int32],
    half_counts: NDArray[np.int32],
    in_core: NDArray[np.int32],
    in_set: NDArray[np.int32],
    members: NDArray[np.int32],
) -> int:
    """Write R*(i) to ``members`` and return its size; the two marks hold the row last seen."""
    size = 0
    for p in range(width):
        j = indices[i, p]
        if j >= 0 and mutual(indices, i, j, width):
            in_core[j] = i
            in_set[j] = i
            members[size] = j
            size += 1
    core = size
    for p in range(core):
        c = members[p]
        shared = 0
        for h in range(half_counts[c]):
            if in_core[half[c, h]] == i:
                shared += 1
        if 3 * shared > 2 * half_counts[c]:
            for h in range(half_counts[c]):
                j = half[c, h]
                if in_set[j] != i:
                    in_set[j] = i
                    members[size] = j
                    size += 1
    return size


@kernel
def _encode_rows(
    features: NDArray[np.float32],
    indices: NDArray[np.int32],
    similarities: NDArray[np.float64],
    width: int,
    half: NDArray[np.int32],
    half_counts: NDArray[np.int32],
    start: int,
    stop: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    rows = indices.shape[0]
    in_core = np.full(rows, -1, dtype=np.int32)
    in_set = np.full(rows, -1, dtype=np.int32)
    members = np.empty(width * (1 + half.shape[1]), dtype=np.int32)
    counts = np.zeros(stop - start, dtype=np.int64)
    columns = np.empty((stop - start) * 2 * width, dtype=np.int32)
    values = np.empty((stop - start) * 2 * width, dtype=np.float64)
    at = 0
    for i in range(start, stop):
        size = _gather(i, indices, width, half, half_counts, in_core, in_set, members)
        if at + size > columns.shape[0]:
            columns, values = _grown(columns, values, at, size)
        total = 0.0
        for m in range(size):
            j = members[m]
            cosine = 2.0
            for p in range(indices.shape[1]):
                if indices[i, p] == j:
                    cosine = similarities[i, p]
                    break
            if cosine == 2.0:
                cosine = similarity(features, i, j)
            weight = np.exp(2.0 * cosine - 2.0)
            columns[at + m] = j
            values[at + m] = weight
            total += weight
        for m in range(size):
            values[at + m] /= total
        counts[i - start] = size
        at += size
    return counts, columns[:at].copy(), values[:at].copy()


@kernel
def _grown(
    columns: NDArray[np.int32], values: NDArray[np.float64], used: int, wanted: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    capacity = 2 * columns.shape[0] + wanted
    more_columns = np.empty(capacity, dtype=np.int32)
    more_values = np.empty(capacity, dtype=np.float64)
    more_columns[:used] = columns[:used]
    more_values[:used] = values[:used]
    return more_columns, more_values
