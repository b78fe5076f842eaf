"""The order in which rows are searched: grouped by camera where cameras matter, else as given."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "Scope", "Span", "Wanted"]

Scope = Literal["all", "same", "other"]


class Wanted(NamedTuple):
    """Candidates to collect for every row.

    Attributes:
        scope: among all rows, those of the row's camera, or those of the other cameras.
        width: candidates a row, the row itself not counted.
        kept: neighbours that the lists will keep of them.
    """

    scope: Scope
    width: int
    kept: int


class Span(NamedTuple):
    """For each of R rows, the columns of a block within its scope.

    Attributes:
        low, high: int64 (R,), half-open ranges of block columns.
        inside: the scope is the range; else it is every column but the range.
    """

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    inside: bool


@dataclass(frozen=True)
class Layout:
    """Positions 0 to N - 1 and the rows that stand there.

    Attributes:
        order: int32 (N,): the row at each position; ascending within a camera.
        first, last: int64 (N,): half-open range of positions of the same camera; all zero
            without cameras.
        grouped: whether there are cameras; without them ``order`` is 0 to N - 1.
    """

    order: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    grouped: bool

    @classmethod
    def plain(cls, rows: int) -> Layout:
        """As given, without cameras."""
        nowhere = np.zeros(rows, dtype=np.int64)
        return cls(np.arange(rows, dtype=np.int32), nowhere, nowhere, False)

    @classmethod
    def by_camera(cls, cameras: NDArray[np.integer]) -> Layout:
        """Grouped by ``cameras`` (N,)."""
        order = np.argsort(cameras, kind="stable").astype(np.int32)
        sizes = np.unique(cameras, return_counts=True)[1].astype(np.int64)
        ends = np.cumsum(sizes)
        return cls(order, np.repeat(ends - sizes, sizes), np.repeat(ends, sizes), True)

    @property
    def rows(self) -> int:
        """N."""
        return int(self.order.size)

    @cached_property
    def cameras(self) -> list[tuple[int, int]]:
        """Half-open range of positions of each camera, in order; everything without cameras."""
        if not self.grouped:
            return [(0, self.rows)] if self.rows else []
        starts = np.unique(self.first)
        return [(int(start), int(self.last[start])) for start in starts]

    def features(self, features: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
        """The rows of positions start to stop: a view without cameras, else a copy."""
        return features[self.order[start:stop]] if self.grouped else features[start:stop]

    def available(self, scope: Scope) -> NDArray[np.int64]:
        """int64 (N,): other rows in scope, by position."""
        same = self.last - self.first
        if scope == "same":
            return same - 1
        return self.rows - same if scope == "other" else np.full(self.rows, self.rows - 1)

    def span_among(
        self, scope: Scope, positions: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> Span:
        """As :meth:`span`, for ascending positions ``columns`` with gaps."""
        if scope == "all":
            nowhere = np.zeros(positions.size, dtype=np.int64)
            return Span(nowhere, nowhere, False)
        low = np.searchsorted(columns, self.first[positions])
        high = np.searchsorted(columns, self.last[positions])
        return Span(low, high, scope == "same")

    def span(
        self, scope: Scope, positions: slice | NDArray[np.int64], left: int, right: int
    ) -> Span:
        """Which of the positions left to right are in scope of the rows at ``positions``."""
        width = right - left
        low = np.clip(self.first[positions] - left, 0, width)
        high = np.clip(self.last[positions] - left, 0, width)
        if scope == "all":
            low = high = np.zeros_like(low)
        return Span(low, high, scope == "same")
