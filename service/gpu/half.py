"""How far a product in half precision may be off.

Rounded to binary16, v becomes v + dv and q becomes q + dq. By Cauchy and Schwarz

    |<v + dv, q + dq> - <v, q>|  <=  |dv| |q| + (|v| + |dv|) |dq|,

in which every norm is known, because the vectors are on the CPU as well: the largest |dv| and |v|
of a matrix are taken when it is uploaded, |dq| at each search. (Elementwise, |dv| is at most
2^-11 |v| + 2^-25 sqrt(D); what is measured is about half of that.) Products of two binary16
numbers are exact in float32; summing D of them in any order, even with truncation as tensor cores
do, is off by at most D 2^-23 |v + dv| |q + dq| (Fasi, Higham, Mikaitis, Pranesh 2021); twice that
is allowed for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rounding", "product_error", "rounding"]

# Rows looked at together.
BLOCK = 4096
# The norms themselves are computed in float32.
SLACK = 1.001


@dataclass(frozen=True, slots=True)
class Rounding:
    """The largest rounding and the largest norm among rows."""

    error: float = 0.0
    norm: float = 0.0

    def joined(self, other: Rounding) -> Rounding:
        """Of both sets of rows."""
        return Rounding(max(self.error, other.error), max(self.norm, other.norm))


def rounding(vectors: NDArray[np.float32]) -> Rounding:
    """Of vectors (N, D); 0 for none."""
    found = Rounding()
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        # The difference is exact: it has at most the 24 bits of the vector's own values.
        lost = block - block.astype(np.float16).astype(np.float32)
        found = found.joined(Rounding(_longest(lost), _longest(block)))
    return found


def product_error(rows: Rounding, queries: NDArray[np.float32]) -> float:
    """Most that any product of the rows with any of queries (Q, D) is off.

    Args:
        rows: Of the matrix.
        queries: The queries as they came.
    """
    asked = rounding(queries)
    norms = (rows.norm + rows.error) * (asked.norm + asked.error)
    summed = queries.shape[1] * 2.0**-22 * norms
    error: float = rows.error * asked.norm + (rows.norm + rows.error) * asked.error + summed
    return error


def _longest(vectors: NDArray[np.float32]) -> float:
    squares = np.einsum("ij,ij->i", vectors, vectors)
    return SLACK * float(np.sqrt(squares.max(initial=0.0)))
