"""A filter turned into rows of one segment, and the cheapest exact way to compare them.

No condition and no tombstone: a plain scan. Few rows, or rows of some cameras, which lie side by
side in a sealed segment: take them one by one. Many: scan with a bitmap. All three compare every
row that passes, so the mode changes the time, never the answer. A segment that lies outside the
time range, or whose vocabulary lacks what is asked for, is passed over without a look at its rows;
where it is sealed, the condition that fewest rows meet names them, and the others are tried on
those alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from service.domain.ports import RowFilter
from service.gallery.conditions import AnyOf, Condition, Mask, NothingError, Rows, conditions
from service.gallery.postings import Postings
from service.gallery.segment import SegmentView

__all__ = ["SegmentPlan", "plan"]


@dataclass(frozen=True, slots=True)
class SegmentPlan:
    """Which rows of a segment are compared, and how.

    Args:
        view: The segment.
        count: Number of rows compared, at least 1.
        rows: The rows of a gather, int64 ascending; None for a scan.
        mask: The rows of a scan, bool (N,); None when it is all of them.
    """

    view: SegmentView
    count: int
    rows: Rows | None
    mask: Mask | None

    def row_numbers(self) -> Rows:
        """Every row compared, ascending."""
        if self.rows is not None:
            return self.rows
        return np.arange(self.view.rows) if self.mask is None else np.flatnonzero(self.mask)


def plan(view: SegmentView, row_filter: RowFilter, *, gather_rows: int) -> SegmentPlan | None:
    """Choose rows and mode; None when no row passes. At most ``gather_rows`` are gathered, or any
    number of cameras' rows; none when it is 0.
    """
    if not view.living:
        return None
    try:
        found = list(conditions(view, row_filter))
    except NothingError:
        return None
    rows = _named(view, found, gather_rows) if gather_rows else None
    if rows is None:
        return _scanned(view, found, gather_rows)
    return SegmentPlan(view, len(rows), rows, None) if len(rows) else None


def _named(view: SegmentView, found: Sequence[Condition], gather_rows: int) -> Rows | None:
    """The rows that pass, found from the condition that names fewest; None when those are many."""
    fewest: tuple[int, AnyOf, Postings] | None = None
    for condition in found:
        if isinstance(condition, AnyOf) and condition.postings is not None:
            count = condition.postings.count(condition.codes)
            if fewest is None or count < fewest[0]:
                fewest = count, condition, condition.postings
    if fewest is None:
        return None
    count, first, postings = fewest
    # Rows side by side are read as fast as a scan reads them, and they are fewer.
    if count > gather_rows and not (len(found) == 1 and postings.order is None):
        return None
    rows = postings.rows(first.codes)
    if view.alive is not None:
        rows = rows[view.alive[rows]]
    for condition in found:
        if condition is not first:
            rows = rows[condition(rows)]
    return rows


def _scanned(view: SegmentView, found: Sequence[Condition], gather_rows: int) -> SegmentPlan | None:
    """Every condition tried on every row."""
    mask = view.alive
    for condition in found:
        met = condition(None)
        mask = met if mask is None else mask & met
    if mask is None:
        return SegmentPlan(view, view.rows, None, None)
    count = int(np.count_nonzero(mask))
    if not count:
        return None
    if count <= gather_rows:
        return SegmentPlan(view, count, np.flatnonzero(mask), None)
    return SegmentPlan(view, count, None, None if count == view.rows else mask)
