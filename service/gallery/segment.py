"""A stretch of rows: columns that are filled once, front to back, and read through views.

One thread writes. A view is a set of windows on the rows there were; later rows are written behind
them and a removal makes a new array of the living, so a reader needs no lock and sees one state.
Once full, a segment is sealed: copied with its rows in order of camera, then time, so that those of
a camera lie side by side and are read as fast as memory goes; other columns are inverted.
Cameras, zones, tracks and attributes are codes of the segment's own vocabularies: a segment that
is dropped or rewritten takes with it every word that no living row uses, and a filter on a word
that a segment does not know passes it over.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexRows
from service.gallery.columns import ColumnPostings, Columns, Words

__all__ = ["Segment", "SegmentView"]

# Rows copied at once when they change places: a few megabytes.
BLOCK = 4096

_serials = itertools.count()


@dataclass(frozen=True, slots=True)
class SegmentView:
    """What a segment held at one moment.

    Args:
        serial: Number of the segment, unique in the process.
        columns: Its rows, tombstones included.
        words: What their codes mean.
        alive: bool (N,), False for removed rows; None when none is.
        dead: Removed rows.
        oldest, newest: Capture times that no row lies outside of.
        postings: None while rows may still be appended.
    """

    serial: int
    columns: Columns
    words: Words
    alive: NDArray[np.bool_] | None
    dead: int
    oldest: int
    newest: int
    postings: ColumnPostings | None = None

    @property
    def rows(self) -> int:
        """Rows, tombstones included."""
        return len(self.columns.times)

    @property
    def living(self) -> int:
        """Rows a search can return."""
        return self.rows - self.dead

    @property
    def nbytes(self) -> int:
        """Bytes of the rows, their words and postings."""
        postings = 0 if self.postings is None else self.postings.nbytes
        return self.columns.nbytes + self.words.nbytes + postings

    def living_rows(self) -> NDArray[np.int64]:
        """Their row numbers, ascending."""
        return np.arange(self.rows) if self.alive is None else np.flatnonzero(self.alive)


class Segment:
    """The writing side; every method belongs to one thread, ``view`` to all.

    Args:
        dimension: Values a vector.
        capacity: Rows it can ever hold.
    """

    def __init__(self, dimension: int, capacity: int) -> None:
        self._room = Columns.empty(capacity, dimension)
        self.words = Words()
        self.view = SegmentView(
            next(_serials), self._room.part(0, 0), self.words, None, 0, 2**63 - 1, -(2**63)
        )

    @classmethod
    def filled(cls, room: Columns, rows: int, words: Words) -> Segment:
        """A segment around columns whose first ``rows`` rows, at least 1, are written already.

        Raises:
            ValueError: a code has no word.
        """
        codes = (
            (room.cameras, words.cameras),
            (room.zones, words.zones),
            (room.tracks, words.tracks),
            (room.attributes, words.attributes),
        )
        for column, known in codes:
            if column[:rows].min() < 0 or column[:rows].max() >= len(known):
                raise ValueError("a code has no word")
        made = cls.__new__(cls)
        made._room, made.words = room, words
        columns = room.part(0, rows)
        made.view = SegmentView(
            next(_serials),
            columns,
            words,
            None,
            0,
            int(columns.times.min()),
            int(columns.times.max()),
        )
        if not made.free:
            made._seal()
        return made

    @classmethod
    def sealed(cls, views: Sequence[SegmentView], dimension: int) -> Segment:
        """The living rows of these, of which there is at least one, in order of camera and time."""
        made = cls(dimension, sum(view.living for view in views))
        made.absorb(views, ordered=True)
        made._seal()
        return made

    @property
    def free(self) -> int:
        """Rows that still fit."""
        return len(self._room.times) - self.view.rows

    def append(self, added: IndexRows, start: int, stop: int) -> None:
        """Write some of the rows behind the last one, then show them."""
        if start == stop:
            return
        old, count, words = self.view.rows, stop - start, self.words
        into = self._room.part(old, old + count)
        into.ids[:] = added.ids[start:stop]
        into.times[:] = added.times[start:stop]
        into.vectors[:] = added.vectors[start:stop]
        into.cameras[:] = words.cameras.encode(added.cameras[start:stop].tolist())
        into.zones[:] = words.zones.encode(_texts(added.zones, start, stop))
        into.tracks[:] = words.tracks.encode(_texts(added.tracks, start, stop))
        if added.attributes is None:
            into.attributes[:] = 0
        else:
            into.attributes[:] = words.attributes.encode(added.attributes[start:stop])
        self._show(old + count, into.times)

    def absorb(self, views: Sequence[SegmentView], *, ordered: bool = False) -> None:
        """Copy the living rows of other segments, with the words they use.

        Args:
            views: The segments.
            ordered: In order of camera, then time, then as they come; else as they come.
        """
        words = self.words
        parts = [(view, view.living_rows()) for view in views if view.living]
        if not parts:
            return
        first = self.view.rows
        into = self._room.part(first, first + sum(len(rows) for _, rows in parts))
        cameras = np.concatenate(
            [words.cameras.adopt(v.words.cameras, v.columns.cameras[rows]) for v, rows in parts]
        )
        places = np.arange(len(cameras))
        if ordered:
            times = np.concatenate([view.columns.times[rows] for view, rows in parts])
            places[np.lexsort((times, cameras))] = np.arange(len(cameras))
        into.cameras[places] = cameras
        start = 0
        for view, rows in parts:
            source, known = view.columns, view.words
            to = places[start : start + len(rows)]
            into.ids[to] = source.ids[rows]
            into.times[to] = source.times[rows]
            into.zones[to] = words.zones.adopt(known.zones, source.zones[rows])
            into.tracks[to] = words.tracks.adopt(known.tracks, source.tracks[rows])
            into.attributes[to] = words.attributes.adopt(known.attributes, source.attributes[rows])
            # All at once would make a second copy of the matrix on the way.
            for block in range(0, len(rows), BLOCK):
                part = slice(block, block + BLOCK)
                into.vectors[to[part]] = source.vectors[rows[part]]
            start += len(rows)
        self._show(first + start, into.times)

    def bury(self, rows: NDArray[np.int64]) -> int:
        """Remove rows by number; returns how many were living."""
        view = self.view
        alive = np.ones(view.rows, dtype=bool) if view.alive is None else view.alive.copy()
        removed = int(np.count_nonzero(alive[rows]))
        if removed:
            alive[rows] = False
            self.view = replace(view, alive=alive, dead=view.dead + removed)
        return removed

    def _seal(self) -> None:
        """Invert the columns of a segment that nobody searches yet; no row comes any more."""
        self.words.freeze()
        self.view = replace(self.view, postings=ColumnPostings.of(self.view.columns, self.words))

    def _show(self, rows: int, added: NDArray[np.int64]) -> None:
        view = self.view
        alive = view.alive
        if alive is not None:
            alive = np.concatenate((alive, np.ones(rows - view.rows, dtype=bool)))
        self.view = replace(
            view,
            columns=self._room.part(0, rows),
            alive=alive,
            oldest=min(view.oldest, int(added.min())),
            newest=max(view.newest, int(added.max())),
        )


def _texts(values: Sequence[str] | None, start: int, stop: int) -> Sequence[str]:
    return [""] * (stop - start) if values is None else values[start:stop]
