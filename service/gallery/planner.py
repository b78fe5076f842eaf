"""Filters turned into rows, and the cheapest exact way to compare those rows.

No condition and no tombstone: a plain scan. Few rows: gather them and multiply. Many: scan with a
bitmap. All three compare every row that passes, so the mode changes the time, never the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import RowFilter
from service.domain.query import SearchMode
from service.gallery.columns import Snapshot

__all__ = ["Plan", "plan"]


@dataclass(frozen=True, slots=True)
class Plan:
    """Which rows are compared, and how.

    Args:
        mode: Scan or gather.
        count: Number of rows compared.
        rows: The rows of a gather, int64 ascending; None for a scan.
        mask: The rows of a scan, bool (N,); None when it is all of them.
    """

    mode: SearchMode
    count: int
    rows: NDArray[np.int64] | None
    mask: NDArray[np.bool_] | None


def plan(snapshot: Snapshot, row_filter: RowFilter, *, gather_rows: int) -> Plan:
    """Choose rows and mode; at most ``gather_rows`` rows are gathered."""
    mask = _mask(snapshot, row_filter)
    if mask is None:
        return Plan(SearchMode.EXACT_SCAN, snapshot.rows, None, None)
    count = int(np.count_nonzero(mask))
    if count <= gather_rows:
        return Plan(SearchMode.EXACT_GATHER, count, np.flatnonzero(mask), None)
    return Plan(SearchMode.EXACT_SCAN, count, None, mask)


def _mask(snapshot: Snapshot, row_filter: RowFilter) -> NDArray[np.bool_] | None:
    conditions: list[NDArray[np.bool_]] = []
    if row_filter.include_cameras is not None:
        conditions.append(_of_cameras(snapshot.cameras, row_filter.include_cameras))
    if row_filter.exclude_cameras:
        conditions.append(~_of_cameras(snapshot.cameras, row_filter.exclude_cameras))
    if row_filter.start is not None:
        conditions.append(snapshot.times >= row_filter.start)
    if row_filter.end is not None:
        conditions.append(snapshot.times < row_filter.end)
    if len(snapshot.dead):
        living = np.ones(snapshot.rows, dtype=bool)
        living[snapshot.dead] = False
        conditions.append(living)
    if not conditions:
        return None
    mask = conditions[0]
    for condition in conditions[1:]:
        mask &= condition
    return mask


def _of_cameras(cameras: NDArray[np.int32], codes: frozenset[int]) -> NDArray[np.bool_]:
    """A lookup table by code: one pass over the rows, however many cameras are named."""
    if not len(cameras):
        return np.zeros(0, dtype=bool)
    table = np.zeros(max(int(cameras.max()), max(codes, default=0)) + 1, dtype=bool)
    table[list(codes)] = True
    return table[cameras]
