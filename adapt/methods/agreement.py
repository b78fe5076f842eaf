"""Cross-agreement of part and whole (Cho et al., CVPR 2022, eq. 3).

    C_i(p) = |R_g(i) n R_p(i)| / |R_g(i) u R_p(i)|

where R_s(i) are the k nearest other crops of crop i in space s, g the whole and p a part, among all
crops, those in no cluster included. One exact search a space; sets are compared block by block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import row_blocks
from adapt.clustering.neighbours import nearest

__all__ = ["cross_agreement"]

# A block's k x k comparisons take so many bytes.
_BLOCK_BYTES = 2**24


def cross_agreement(
    vectors: NDArray[np.float32],
    parts: NDArray[np.float32],
    k: int,
    *,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """C_i(p) as (N, P), each in 0..1.

    Args:
        vectors: (N, D) unit rows of the whole.
        parts: (N, P, E) unit rows of the parts.
        k: Size of R; with fewer than k other crops all of them.
        threads: As for ``nearest``.
    """
    whole = _others(vectors, k, threads)
    columns = [
        _overlap(whole, _others(np.ascontiguousarray(parts[:, part]), k, threads))
        for part in range(parts.shape[1])
    ]
    return np.stack(columns, axis=1)


def _others(vectors: NDArray[np.float32], k: int, threads: int | None) -> NDArray[np.int32]:
    return nearest(vectors, k + 1, threads=threads).indices[:, 1:]


def _overlap(first: NDArray[np.int32], second: NDArray[np.int32]) -> NDArray[np.float32]:
    """Intersection over union of each row's indices, which are distinct within a list."""
    rows, k = first.shape
    shared = np.empty(rows, dtype=np.int64)
    for start, stop in row_blocks(rows, max(1, _BLOCK_BYTES // max(1, k * k))):
        equal = first[start:stop, :, None] == second[start:stop, None, :]
        shared[start:stop] = np.count_nonzero(equal, axis=(1, 2))
    ratio: NDArray[np.float64] = shared / np.maximum(2 * k - shared, 1)
    return ratio.astype(np.float32)
