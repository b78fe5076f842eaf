"""A filter as conditions on the rows of one segment.

Only conditions that some of its rows fail are made. Each can be tried on all rows or on some, and
one on codes also names its rows where the segment has postings.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import CameraSpan, RowFilter
from service.gallery.postings import Postings
from service.gallery.segment import SegmentView
from service.gallery.vocabulary import Vocabulary

__all__ = ["AnyOf", "Condition", "Mask", "NothingError", "Rows", "conditions"]

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
# Which of these rows meet it; of all when None.
Condition = Callable[[Rows | None], Mask]


class NothingError(Exception):
    """No row of the segment can pass."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The row has one of some codes.

    Args:
        column: (N,) codes.
        size: Codes there are.
        codes: int64, ascending; at least one, and not all.
        postings: Of the column; None where rows may still be appended.
    """

    column: NDArray[np.int32]
    size: int
    codes: NDArray[np.int64]
    postings: Postings | None

    def __call__(self, rows: Rows | None) -> Mask:
        """Which of these rows have one; of all when None."""
        found: NDArray[np.int32] = _at(self.column, rows)
        met: Mask
        # One code is compared, not looked up: a fifth of the time.
        if len(self.codes) == 1:
            met = found == self.codes[0]
            return met
        table = np.zeros(self.size, dtype=bool)
        table[self.codes] = True
        met = found != table.argmin() if len(self.codes) == self.size - 1 else table[found]
        return met


def conditions(view: SegmentView, chosen: RowFilter) -> Iterator[Condition]:
    """The conditions, the cheapest first.

    Raises:
        NothingError: no row meets them all.
    """
    columns, words, postings = view.columns, view.words, view.postings
    times = columns.times
    if chosen.start is not None and chosen.start > view.oldest:
        if chosen.start > view.newest:
            raise NothingError
        yield partial(_since, times, chosen.start)
    if chosen.end is not None and chosen.end <= view.newest:
        if chosen.end <= view.oldest:
            raise NothingError
        yield partial(_before, times, chosen.end)
    if chosen.include_cameras is not None or chosen.exclude_cameras:
        named = postings.cameras if postings else None
        include, exclude = chosen.include_cameras, chosen.exclude_cameras
        yield from _words(columns.cameras, words.cameras, named, include, exclude)
    if chosen.include_zones is not None or chosen.exclude_zones:
        named = postings.zones if postings else None
        zones = chosen.include_zones, chosen.exclude_zones
        yield from _words(columns.zones, words.zones, named, *zones)
    if chosen.include_tracks is not None or chosen.exclude_tracks:
        named = postings.tracks if postings else None
        tracks = chosen.include_tracks, chosen.exclude_tracks
        yield from _words(columns.tracks, words.tracks, named, *tracks)
    if chosen.include_attributes or chosen.exclude_attributes:
        yield from _attributes(view, chosen)
    for span in chosen.exclude_spans:
        if span.start <= view.newest and span.end > view.oldest:
            for code in words.cameras.find((span.camera,)):
                yield partial(_outside, view, code, span)


def _since(times: NDArray[np.int64], start: int, rows: Rows | None) -> Mask:
    met: Mask = _at(times, rows) >= start
    return met


def _before(times: NDArray[np.int64], end: int, rows: Rows | None) -> Mask:
    met: Mask = _at(times, rows) < end
    return met


def _outside(view: SegmentView, camera: int, span: CameraSpan, rows: Rows | None) -> Mask:
    """The rows that the camera did not see in the span."""
    times = _at(view.columns.times, rows)
    met: Mask = _at(view.columns.cameras, rows) != camera
    return met | (times < span.start) | (times >= span.end)


def _at(column: NDArray[Any], rows: Rows | None) -> NDArray[Any]:
    return column if rows is None else column[rows]


def _words(
    column: NDArray[np.int32],
    vocabulary: Vocabulary[Any],
    postings: Postings | None,
    include: Collection[Any] | None,
    exclude: Collection[Any],
) -> Iterator[Condition]:
    # Another thread may add words meanwhile: none of the rows seen here has them.
    size = len(vocabulary)
    if include is not None and not exclude:
        found = sorted(code for code in vocabulary.find(include) if code < size)
        codes = np.array(found, np.int64)
    else:
        table = np.full(size, include is None)
        if include is not None:
            table[[code for code in vocabulary.find(include) if code < size]] = True
        table[[code for code in vocabulary.find(exclude) if code < size]] = False
        codes = np.flatnonzero(table)
    yield from _any_of(column, size, codes, postings)


def _attributes(view: SegmentView, chosen: RowFilter) -> Iterator[Condition]:
    sets = view.words.attributes
    size = len(sets)
    if len(chosen.include_attributes) == 1 and not chosen.exclude_attributes:
        codes = sets.codes(chosen.include_attributes[0], size)
    else:
        table = np.ones(size, dtype=bool)
        for term in chosen.include_attributes:
            table &= sets.matching(term, size)
        for term in chosen.exclude_attributes:
            table &= ~sets.matching(term, size)
        codes = np.flatnonzero(table)
    named = view.postings.attributes if view.postings else None
    yield from _any_of(view.columns.attributes, size, codes, named)


def _any_of(
    column: NDArray[np.int32], size: int, codes: NDArray[np.int64], postings: Postings | None
) -> Iterator[Condition]:
    """Nothing when every code will do."""
    if not len(codes):
        raise NothingError
    if len(codes) < size:
        yield AnyOf(column, size, codes, postings)
