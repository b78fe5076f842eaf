"""Cosine similarity of unit rows, exact enough to order by.

Equations::

    sim(i, j) = round(2^40 * sum_d x_id x_jd) / 2^40,    |x_i| = 1, sum in float64

Intended deviation from the released code: it orders and weighs by float32 products, whose last
bits depend on how the matrix product was cut into blocks. Here a similarity is a float64 sum of
the float32 coordinates, rounded to a multiple of 2^-40 (9e-13): equal crops, and pairs that are
equal on paper, come out equal in memory, so that ties can be broken by index on every machine.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.kernel import kernel, reducing_kernel
from resight.errors import InvalidArgument

__all__ = ["SNAP", "checked_features", "product_error", "similarity", "unit_rows"]

SNAP = float(2**40)
_UNIT_TOLERANCE = 1e-6
_NORM_BLOCK = 4096


@reducing_kernel
def _dot(left: NDArray[np.float32], right: NDArray[np.float32]) -> float:
    total = 0.0
    for d in range(left.shape[0]):
        total += np.float64(left[d]) * np.float64(right[d])
    return total


@kernel
def similarity(features: NDArray[np.float32], i: int, j: int) -> float:
    """``sim(i, j)`` of the module's equation; the same bits as ``sim(j, i)``."""
    return float(np.rint(_dot(features[i], features[j]) * SNAP) / SNAP)


def product_error(dimension: int) -> float:
    """Bound on the error of a float32 product of two unit rows, in any order of summation.

    ``n u / (1 - n u)`` with ``u = 2^-24`` (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1), plus the rounding of :func:`similarity`.
    """
    scaled = (dimension + 2) * 2.0**-24
    return scaled / (1.0 - scaled) * (1.0 + _UNIT_TOLERANCE) ** 2 + 1.0 / SNAP


def checked_features(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """``features`` as a C-ordered float32 matrix (N, D), without a copy where it is one already.

    Raises:
        InvalidArgument: not a two-dimensional float matrix with at least one column.
    """
    if features.ndim != 2 or features.shape[1] < 1:
        raise InvalidArgument(
            f"features: has shape {features.shape}; give one row of at least one number per crop",
            field="features",
        )
    if not np.issubdtype(features.dtype, np.floating):
        raise InvalidArgument(
            f"features: has dtype {features.dtype}; give floating point numbers", field="features"
        )
    return np.ascontiguousarray(features, dtype=np.float32)


def unit_rows(features: NDArray[np.floating], *, overwrite: bool = False) -> NDArray[np.float32]:
    """L2-normalise the rows; a matrix whose rows are unit already is returned as it is.

    Args:
        features: float (N, D).
        overwrite: Normalise a float32 matrix in place instead of in a copy.

    Returns:
        float32 (N, D), C order.

    Raises:
        InvalidArgument: wrong shape or dtype, a value that is not finite, or an all-zero row.
    """
    rows = checked_features(features)
    norms = _norms(rows)
    if np.all(np.abs(norms - 1.0) <= _UNIT_TOLERANCE):
        return rows
    unit = rows if overwrite and rows.flags.writeable else np.empty_like(rows)
    for start in range(0, rows.shape[0], _NORM_BLOCK):
        stop = start + _NORM_BLOCK
        unit[start:stop] = rows[start:stop] / norms[start:stop, None]
    return unit


def _norms(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    norms = np.empty(rows.shape[0], dtype=np.float64)
    for start in range(0, rows.shape[0], _NORM_BLOCK):
        block = rows[start : start + _NORM_BLOCK]
        norms[start : start + _NORM_BLOCK] = np.sqrt(
            np.einsum("nd,nd->n", block, block, dtype=np.float64)
        )
    bad = np.flatnonzero(~np.isfinite(norms))
    if bad.size:
        raise InvalidArgument(
            f"features: {bad.size} rows hold values that are not finite, the first is row "
            f"{bad[0]}; drop those crops or mend the encoder",
            field="features",
        )
    zero = np.flatnonzero(norms < math.sqrt(np.finfo(np.float32).tiny))
    if zero.size:
        raise InvalidArgument(
            f"features: {zero.size} rows are all zero and have no direction, the first is row "
            f"{zero[0]}; drop those crops",
            field="features",
        )
    return norms
