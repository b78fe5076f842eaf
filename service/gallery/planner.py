"""A filter turned into rows of one segment, and the cheapest exact way to compare them.

No condition and no tombstone: a plain scan. Few rows: take them one by one. Many: scan with a
bitmap. All three compare every row that passes, so the mode changes the time, never the answer. A
segment that lies outside the time range, or whose vocabulary lacks what is asked for, is passed
over without a look at its rows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import RowFilter
from service.gallery.segment import SegmentView
from service.gallery.vocabulary import Vocabulary

__all__ = ["SegmentPlan", "plan"]

Mask = NDArray[np.bool_]


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
    rows: NDArray[np.int64] | None
    mask: Mask | None

    def row_numbers(self) -> NDArray[np.int64]:
        """Every row compared, ascending."""
        if self.rows is not None:
            return self.rows
        return np.arange(self.view.rows) if self.mask is None else np.flatnonzero(self.mask)


class _NothingError(Exception):
    """No row of the segment can pass."""


def plan(view: SegmentView, row_filter: RowFilter, *, gather_rows: int) -> SegmentPlan | None:
    """Choose rows and mode; None when no row passes. At most ``gather_rows`` are gathered."""
    if not view.living:
        return None
    mask = view.alive
    try:
        for condition in _conditions(view, row_filter):
            mask = condition if mask is None else mask & condition
    except _NothingError:
        return None
    if mask is None:
        return SegmentPlan(view, view.rows, None, None)
    count = int(np.count_nonzero(mask))
    if not count:
        return None
    if count <= gather_rows:
        return SegmentPlan(view, count, np.flatnonzero(mask), None)
    return SegmentPlan(view, count, None, None if count == view.rows else mask)


def _conditions(view: SegmentView, chosen: RowFilter) -> Iterator[Mask]:
    """Those that some rows of the segment fail; the cheapest first."""
    columns, words = view.columns, view.words
    if chosen.start is not None and chosen.start > view.oldest:
        if chosen.start > view.newest:
            raise _NothingError
        yield columns.times >= chosen.start
    if chosen.end is not None and chosen.end <= view.newest:
        if chosen.end <= view.oldest:
            raise _NothingError
        yield columns.times < chosen.end
    yield from _words(
        columns.cameras, words.cameras, chosen.include_cameras, chosen.exclude_cameras
    )
    yield from _words(columns.zones, words.zones, chosen.include_zones, chosen.exclude_zones)
    yield from _words(columns.tracks, words.tracks, chosen.include_tracks, chosen.exclude_tracks)
    if chosen.include_attributes or chosen.exclude_attributes:
        yield from _attributes(view, chosen)
    for span in chosen.exclude_spans:
        if span.start <= view.newest and span.end > view.oldest:
            for code in words.cameras.find((span.camera,)):
                seen = columns.cameras == code
                yield ~(seen & (columns.times >= span.start) & (columns.times < span.end))


def _words(
    column: NDArray[np.int32],
    vocabulary: Vocabulary[Any],
    include: Collection[Any] | None,
    exclude: Collection[Any],
) -> Iterator[Mask]:
    if include is None and not exclude:
        return
    size = len(vocabulary)
    table = np.full(size, include is None)
    if include is not None:
        table[vocabulary.find(include)] = True
    table[vocabulary.find(exclude)] = False
    yield from _rows_of(column, table)


def _attributes(view: SegmentView, chosen: RowFilter) -> Iterator[Mask]:
    sets = view.words.attributes
    size = len(sets)
    table = np.ones(size, dtype=bool)
    for term in chosen.include_attributes:
        table &= sets.matching(term, size)
    for term in chosen.exclude_attributes:
        table &= ~sets.matching(term, size)
    yield from _rows_of(view.columns.attributes, table)


def _rows_of(column: NDArray[np.int32], table: Mask) -> Iterator[Mask]:
    """The rows whose code the table allows; nothing when it allows all."""
    allowed = int(np.count_nonzero(table))
    if not allowed:
        raise _NothingError
    if allowed == len(table):
        return
    # One code is compared, not looked up: a fifth of the time.
    if allowed == 1:
        yield column == int(table.argmax())
    elif allowed == len(table) - 1:
        yield column != int(table.argmin())
    else:
        yield table[column]
