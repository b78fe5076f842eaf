"""The rows that may be among the best of one query, while segments are looked at.

A float32 product of two unit vectors is off by at most the margin's half, so a row belongs to the
best ``wanted`` only if its product is within the margin of the ``wanted``-th best product found
anywhere. That place only rises, so what lies below it can be dropped on the way.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidates", "float32_margin"]

# Rows kept beyond those wanted before the worst are dropped.
SLACK = 4096


def float32_margin(dimension: int) -> float:
    """Twice the error of a float32 product of unit vectors: 2 gamma_D (see ``gallery.index``)."""
    unit = dimension * 2.0**-24
    # Rounding the defined score to float32 may move it by 2^-25 more; 2^-22 is ample.
    return 2.0 * unit / (1.0 - unit) + 2.0**-22


class Candidates:
    """What is left of the rows offered; belongs to one thread.

    Args:
        wanted: Places to fill.
        margin: Twice the error of a product.
    """

    def __init__(self, wanted: int, margin: float) -> None:
        self._wanted = wanted
        self._margin = margin
        self._values: list[NDArray[np.float32]] = []
        self._rows: list[NDArray[np.int64]] = []
        self._segments: list[NDArray[np.int32]] = []
        self._count = 0
        self._settled = 0
        self.lowest = -np.inf

    @property
    def values(self) -> NDArray[np.float32]:
        """Products."""
        return np.concatenate(self._values) if self._values else np.empty(0, np.float32)

    @property
    def rows(self) -> NDArray[np.int64]:
        """Row numbers in their segments."""
        return np.concatenate(self._rows) if self._rows else np.empty(0, np.int64)

    @property
    def segments(self) -> NDArray[np.int32]:
        """Numbers of the segments."""
        return np.concatenate(self._segments) if self._segments else np.empty(0, np.int32)

    def offer(
        self,
        segment: NDArray[np.int32] | int,
        values: NDArray[np.float32],
        rows: NDArray[np.int64] | int,
    ) -> None:
        """Rows and their products; ``rows`` may be the number of the first of a run, ``segment``
        one for all.
        """
        places = np.flatnonzero(values >= self.lowest)
        if not len(places):
            return
        self._values.append(values[places])
        self._rows.append(places + rows if isinstance(rows, int) else rows[places])
        self._segments.append(
            np.full(len(places), segment, np.int32) if isinstance(segment, int) else segment[places]
        )
        self._count += len(places)
        if self._count > self._settled + self._wanted + SLACK or self.lowest == -np.inf:
            self.settle()

    def settle(self) -> None:
        """Drop what cannot be among the best any more."""
        if self._count < max(1, self._wanted):
            return
        values, rows, segments = self.values, self.rows, self.segments
        place = self._count - self._wanted
        # The margin is subtracted in float64: rounded to float32 it could shrink.
        self.lowest = float(np.partition(values, place)[place]) - self._margin
        self._keep(values >= self.lowest, values, rows, segments)

    def forget(self, segment: int) -> None:
        """Drop the rows of a segment that is offered again, whole."""
        values, rows, segments = self.values, self.rows, self.segments
        self._keep(segments != segment, values, rows, segments)

    def take(self, others: Iterable[Candidates]) -> None:
        """Add what other threads found."""
        for other in others:
            self._values.append(other.values)
            self._rows.append(other.rows)
            self._segments.append(other.segments)
            self._count += other._count
        self.settle()

    def _keep(
        self,
        kept: NDArray[np.bool_],
        values: NDArray[np.float32],
        rows: NDArray[np.int64],
        segments: NDArray[np.int32],
    ) -> None:
        self._values, self._rows = [values[kept]], [rows[kept]]
        self._segments = [segments[kept]]
        self._count = self._settled = len(self._values[0])
