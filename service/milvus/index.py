"""A gallery's vectors in a Milvus collection, answering exactly as the built-in index does.

Scores are defined as there: the inner product of the float32 vectors in float64, rounded once to
float32. Milvus returns the vectors of its candidates with them, and they are scored here; the
margin rule of ``service.gallery.index`` says which candidates are enough (``deepening``).

One process at a time changes a collection, and through one ``MilvusIndex``. A change waits for the
searches that have begun and searches wait for a change, so that each sees one state although it
may take several calls. A change that fails half-way leaves a debt: it is undone, or brought to its
end, before anything else is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexHits, IndexRows, RowFilter
from service.gallery.candidates import float32_margin
from service.gallery.index_folder import LogMark
from service.gallery.row_ids import id_halves
from service.milvus import days, expressions
from service.milvus.collection import Collection, Found
from service.milvus.deepening import asked, deepened, is_complete
from service.milvus.ranking import nothing, ranked
from service.milvus.rows import id_texts, records
from service.milvus.shared_lock import SharedLock

__all__ = ["MilvusIndex"]


class MilvusIndex:
    """A GalleryIndex over one collection.

    Args:
        collection: The rows; those there are kept.

    Raises:
        Unavailable: Milvus does not answer.
    """

    def __init__(self, collection: Collection) -> None:
        self.dimension = collection.dimension
        self._collection = collection
        self._lock = SharedLock()
        self._days: Counter[int] = Counter()
        # Ids whose removal is owed, and whether the counts must be taken again.
        self._owed: list[str] = []
        self._uncounted = True
        self._margin = float32_margin(self.dimension)
        self._settle()

    def __len__(self) -> int:
        """Rows a search can return."""
        return self._days.total()

    @property
    def tombstones(self) -> int:
        """Removed rows that still take memory of this process: none."""
        return 0

    @property
    def device_bytes(self) -> int:
        """Nothing is on a device of this process."""
        return 0

    @property
    def nbytes(self) -> int:
        """Bytes of the rows in this process: they are Milvus's."""
        return 0

    def ids(self) -> NDArray[np.uint64]:
        """Ids of the rows, (N, 2) uint64 halves, in no order."""
        with self._reading():
            pages = [
                id_halves([UUID(hex=text) for text in page]) for page in self._collection.ids()
            ]
        return np.concatenate(pages) if pages else np.empty((0, 2), np.uint64)

    def mark(self) -> LogMark | None:
        """The position of the log that the rows are up to, or beyond; None when nobody said."""
        with self._reading():
            found = self._collection.note("mark")
        position, _, entry = found.partition(" ")
        return LogMark(int(position), entry) if position else None

    def remember(self, mark: LogMark) -> None:
        """Keep a mark with the rows: it is in every copy of them.

        A mark may be too old, never too new: changes after it are applied again.
        """
        with self._changing(undo=()):
            self._collection.keep_note("mark", f"{mark.position} {mark.entry}")

    def clear(self) -> None:
        """Remove every row and the mark.

        Raises:
            Unavailable: Milvus failed; some of the rows may be gone already.
        """
        with self._changing(undo=()):
            self._collection.keep_note("mark", "")
            for day in sorted(self._days):
                self._collection.drop_day(day)
                del self._days[day]

    def discard(self) -> None:
        """Remove the collection, of a model that is retired; nothing else may follow."""
        with self._changing(undo=()):
            self._collection.drop()

    def add(self, rows: IndexRows) -> None:
        """Append rows whose ids are not in the index.

        Raises:
            ValueError: the columns do not fit each other or the dimension.
            Unavailable: Milvus failed; nothing was added.
        """
        rows.check(self.dimension)
        ids, of_days = id_texts(rows.ids), days.days_of(rows.times)
        with self._changing(undo=ids):
            for day in np.unique(of_days).tolist():
                if day not in self._days:
                    self._collection.add_day(day)
                    self._days[day] = 0
                chosen = np.flatnonzero(of_days == day)
                self._collection.insert(day, records(rows, ids, chosen))
            self._days.update(of_days.tolist())

    def remove(self, ids: Sequence[UUID]) -> int:
        """Remove rows by id; returns how many were there.

        Raises:
            Unavailable: Milvus failed; the rows will be gone before anything is answered again.
        """
        texts = list(dict.fromkeys(value.hex for value in ids))
        if not texts:
            return 0
        with self._changing(undo=texts):
            there = self._collection.rows(texts, ["id", "time"])
            self._collection.delete([row["id"] for row in there])
            gone = days.days_of(np.array([row["time"] for row in there], np.int64))
            self._days.subtract(gone.tolist())
        return len(there)

    def drop_before(self, time: int) -> int:
        """Remove every row captured before this microsecond, whole days where it can; returns how
        many there were.

        Raises:
            Unavailable: Milvus failed; some of the rows may be gone already.
        """
        before = self._days.total()
        with self._changing(undo=()):
            for day in sorted(self._days):
                if (day + 1) * days.MICROS <= time:
                    self._collection.drop_day(day)
                    del self._days[day]
                elif day * days.MICROS < time:
                    self._collection.delete_before(day, time)
                    self._days[day] = self._count_day(day)
        return before - self._days.total()

    def search(
        self,
        vector: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> IndexHits:
        """The best ``top_k`` rows that pass the filter and reach ``min_score``; vector (D,).

        Raises:
            ValueError: the vector has another dimension.
            InvalidArgument: the filter is too long for Milvus.
            Unavailable: Milvus failed.
        """
        return self.search_batch(vector[np.newaxis], top_k, row_filter, min_score)[0]

    def search_batch(
        self,
        vectors: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> list[IndexHits]:
        """As ``search``, for each row of vectors (Q, D), over one state of the index."""
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"query has shape {vectors.shape}, the index (Q, {self.dimension})")
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        with self._reading():
            total = len(self)
            filled = [day for day, count in self._days.items() if count]
            in_days = days.overlapping(filled, row_filter.start, row_filter.end)
            found, count = [nothing(self.dimension)] * len(queries), 0
            if in_days and len(queries) and not expressions.matches_nothing(row_filter):
                cut = not days.whole(in_days, row_filter.start, row_filter.end)
                condition = expressions.conditions(row_filter, times=cut)
                count = (
                    self._collection.count(condition, in_days)
                    if condition
                    else sum(self._days[day] for day in in_days)
                )
                if count:
                    wanted = top_k + len(row_filter.exclude_ids)
                    found = self._candidates(queries, wanted, condition, in_days)
        excluded = {value.hex for value in row_filter.exclude_ids}
        return [
            ranked(each, query, top_k, excluded, min_score, count, total)
            for query, each in zip(queries, found, strict=True)
        ]

    def vectors_of(self, ids: Sequence[UUID]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors of the rows that are there: places in ``ids``, ascending, and (len, D).

        Raises:
            Unavailable: Milvus failed.
        """
        texts = [value.hex for value in ids]
        with self._reading():
            rows = self._collection.rows(list(dict.fromkeys(texts)), ["id", "vector"])
        place_of = {text: place for place, text in enumerate(texts)}
        found = sorted((place_of[row["id"]], row["vector"]) for row in rows)
        vectors = np.empty((len(found), self.dimension), np.float32)
        for number, (_, vector) in enumerate(found):
            vectors[number] = vector
        return np.array([place for place, _ in found], np.int64), vectors

    def _candidates(
        self, queries: NDArray[np.float32], wanted: int, condition: str, in_days: Sequence[int]
    ) -> list[Found]:
        limit = self._collection.limit
        count = asked(wanted, limit)
        at_once = max(1, limit // count)
        made: list[Found] = []
        for start in range(0, len(queries), at_once):
            part = queries[start : start + at_once]
            answers = self._collection.search(part, count, condition, in_days)
            for query, found in zip(part, answers, strict=True):
                if not is_complete(found, count, wanted, self._margin, -np.inf):
                    found = self._deepened(query, wanted, condition, in_days)
                made.append(found)
        return made

    def _deepened(
        self, query: NDArray[np.float32], wanted: int, condition: str, in_days: Sequence[int]
    ) -> Found:
        def ask(count: int, low: str, high: str) -> Found:
            within = expressions.both(condition, expressions.id_range(low, high))
            return self._collection.search(query[np.newaxis], count, within, in_days)[0]

        return deepened(ask, wanted, self._collection.limit, self._margin)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        while True:
            with self._lock.shared():
                if not self._indebted:
                    yield
                    return
            with self._lock.alone():
                self._settle()

    @contextmanager
    def _changing(self, *, undo: Sequence[str]) -> Iterator[None]:
        """A change; when it fails, the rows ``undo`` are to be gone before the next answer."""
        with self._lock.alone():
            self._settle()
            try:
                yield
            except BaseException:
                self._owed, self._uncounted = list(undo), True
                raise

    @property
    def _indebted(self) -> bool:
        return bool(self._owed) or self._uncounted

    def _settle(self) -> None:
        """Do what a failed change left undone; alone."""
        if self._owed:
            self._collection.delete(self._owed)
            self._owed = []
        if self._uncounted:
            self._days = Counter({day: self._count_day(day) for day in self._collection.days()})
            self._uncounted = False

    def _count_day(self, day: int) -> int:
        return self._collection.count(f"time >= {day * days.MICROS}", [day])
