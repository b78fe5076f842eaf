"""The rows of each code of a column, so that a filter need not look at the others.

    rows of code c = order[starts[c] : starts[c + 1]], ascending

A column that is in order of its codes needs no ``order``: its rows are their own places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Postings"]


@dataclass(frozen=True, slots=True)
class Postings:
    """An inverted column.

    Args:
        starts: (codes + 1,) int32.
        order: (N,) unsigned row numbers; None when they are 0, 1, 2, ...
    """

    starts: NDArray[np.int32]
    order: NDArray[np.unsignedinteger] | None

    @classmethod
    def of(cls, column: NDArray[np.int32], codes: int) -> Postings:
        """Of a column (N,) whose codes are below ``codes``."""
        starts = np.zeros(codes + 1, np.int32)
        np.cumsum(np.bincount(column, minlength=codes), out=starts[1:])
        if (column[1:] >= column[:-1]).all():
            return cls(starts, None)
        # numpy sorts 16 bits by radix, in a fifth of the time.
        keys = column.astype(np.min_scalar_type(codes - 1), copy=False)
        order = np.argsort(keys, kind="stable")
        return cls(starts, order.astype(np.min_scalar_type(len(column) - 1)))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.starts.nbytes + (0 if self.order is None else self.order.nbytes)

    def count(self, codes: NDArray[np.int64]) -> int:
        """Rows that have one of these distinct codes."""
        if len(codes) == 1:
            return int(self.starts[codes[0] + 1] - self.starts[codes[0]])
        return int((self.starts[codes + 1] - self.starts[codes]).sum())

    def rows(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows that have one of these ascending codes, int64 ascending."""
        if len(codes) == 1:
            start, stop = self.starts[codes[0]], self.starts[codes[0] + 1]
            if self.order is None:
                return np.arange(start, stop, dtype=np.int64)
            return self.order[start:stop].astype(np.int64)
        first = self.starts[codes].astype(np.int64)
        counts = self.starts[codes + 1] - first
        # The k-th row of all is the (k - rows of codes before)-th of its own.
        places = np.arange(counts.sum()) + np.repeat(first - np.cumsum(counts) + counts, counts)
        return places if self.order is None else np.sort(self.order[places]).astype(np.int64)
