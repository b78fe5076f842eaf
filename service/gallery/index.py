"""Exact search over one gallery.

The answer is defined without reference to how it is found: the score of a row is the inner
product of the two float32 vectors in float64, rounded once to float32, and rows are ranked by
score, then by id. A float32 pass finds the candidates. Its inner product of two unit vectors of D
values is off by at most gamma_D = D u / (1 - D u), u = 2^-24 (Higham, Accuracy and Stability of
Numerical Algorithms, eq. 3.5), in whatever order it adds; so every row within 2 gamma_D of the
k-th best candidate is kept, scored as defined, and ranked. Filtered or not, gathered or scanned,
in one segment or in many, alone or in a batch: the same rows, the same scores, the same order.

Rows lie in segments of fixed size, filled in the order in which they came: a time filter passes
most of them over, and what is rewritten is one segment at a time. A full one is put in order of
cameras, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexHits, IndexRows, RowFilter
from service.domain.query import SearchMode
from service.gallery.candidates import Candidates, float32_margin
from service.gallery.compaction import rewritten, worst_run
from service.gallery.comparison import compare
from service.gallery.planner import SegmentPlan, plan
from service.gallery.ranking import rank
from service.gallery.row_ids import IdSet, id_halves
from service.gallery.search_threads import SearchThreads
from service.gallery.segment import Segment
from service.gallery.state import Snapshot
from service.telemetry import stage

__all__ = ["SEGMENT_ROWS", "SegmentedIndex", "Snapshot"]

SEGMENT_ROWS = 65_536
# Less work than this, to plan and to multiply, is done sooner than another thread is awake.
SHARED_SEGMENTS = 64
SHARED_PRODUCTS = 4_000_000

_HALF = (1 << 64) - 1


class SegmentedIndex:
    """Vectors of one gallery and one model, compared one by one.

    ``add``, ``remove``, ``drop_before``, ``compact`` and ``adopt`` belong to one thread; searches
    may run on any, at the same time, without a lock, and each sees one state.

    Args:
        dimension: Values a vector.
        gather_rows: Filters that leave at most this many rows of a segment gather them.
        segment_rows: Rows a segment.
        threads: Compare segments side by side; None does it on the caller's thread.
    """

    def __init__(
        self,
        dimension: int,
        *,
        gather_rows: int = 16_384,
        segment_rows: int = SEGMENT_ROWS,
        threads: SearchThreads | None = None,
    ) -> None:
        self.dimension = dimension
        self._gather_rows = gather_rows
        self._segment_rows = segment_rows
        self._threads = threads or SearchThreads(1)
        self._segments: list[Segment] = []
        self._snapshot = Snapshot(())
        self._margin = float32_margin(dimension)

    def __len__(self) -> int:
        """Rows a search can return."""
        return self._snapshot.living

    @property
    def snapshot(self) -> Snapshot:
        """What the index holds now; stays as it is."""
        return self._snapshot

    @property
    def tombstones(self) -> int:
        """Removed rows that still take memory."""
        return sum(view.dead for view in self._snapshot.views)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows and their vocabularies; room not yet written to is not resident."""
        return sum(view.nbytes for view in self._snapshot.views)

    @property
    def device_bytes(self) -> int:
        """Nothing is on a device."""
        return 0

    def ids(self) -> NDArray[np.uint64]:
        """Every row's id, (N, 2) halves."""
        return self._snapshot.ids()

    def discard(self) -> None:
        """Nothing is held but memory."""

    def vectors_of(self, ids: Sequence[UUID]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The vectors of rows that are there: their places in ``ids``, ascending, and float32
        (len(places), D).
        """
        wanted = IdSet(id_halves(ids))
        places = {(value.int >> 64, value.int & _HALF): place for place, value in enumerate(ids)}
        found, parts = [], []
        for view in self._snapshot.views:
            rows = wanted.rows(view.columns.ids)
            rows = rows if view.alive is None else rows[view.alive[rows]]
            found += [places[high, low] for high, low in view.columns.ids[rows].tolist()]
            parts.append(view.columns.vectors[rows])
        order = np.argsort(np.array(found, np.int64))
        vectors = np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)
        return np.array(found, np.int64)[order], vectors[order]

    def add(self, rows: IndexRows) -> None:
        """Append rows whose ids are not in the index; the catalog sees to that.

        Raises:
            ValueError: the columns do not fit each other or the dimension.
        """
        rows.check(self.dimension)
        segments = list(self._segments)
        views = [segment.view for segment in segments[-1:]]
        try:
            self._append(rows)
        except BaseException:
            # Out of memory, perhaps: whoever tries again must find nothing done.
            for segment, view in zip(segments[-1:], views, strict=True):
                segment.view = view
            self._segments = segments
            raise
        self._publish()

    def adopt(self, segment: Segment) -> None:
        """Append a segment that was filled elsewhere."""
        self._segments.append(segment)
        self._publish()

    def remove(self, ids: Sequence[UUID]) -> int:
        """Remove rows by id; returns how many were there. Writes at most one segment anew."""
        wanted, removed = IdSet(id_halves(ids)), 0
        for segment in self._segments if len(wanted) else ():
            removed += segment.bury(wanted.rows(segment.view.columns.ids))
        return self._removed(removed)

    def drop_before(self, time: int) -> int:
        """Remove rows captured before this microsecond, whole segments where it can; returns how
        many there were.
        """
        removed = 0
        for segment in self._segments:
            view = segment.view
            if view.newest < time:
                removed += segment.bury(view.living_rows())
            elif view.oldest < time:
                removed += segment.bury(np.flatnonzero(view.columns.times < time))
        return self._removed(removed)

    def compact(self, *, most: int | None = None) -> int:
        """Write segments with many tombstones anew and merge small ones; returns how many times.

        Args:
            most: Stop after so many; None goes on until nothing is left to do.
        """
        done = 0
        while most is None or done < most:
            run = worst_run(self._segments, self._segment_rows)
            if run is None:
                break
            start, stop = run
            capacity = self._segment_rows if stop == len(self._segments) else 0
            made = rewritten(self._segments[start:stop], self.dimension, capacity=capacity)
            self._segments[start:stop] = [made]
            done += 1
            self._publish()
        return done

    def search(
        self,
        vector: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> IndexHits:
        """The best rows that pass the filter and reach ``min_score``.

        Args:
            vector: float32 (D,), unit L2 norm.
            top_k: Rows wanted; fewer are returned when fewer pass.
            row_filter: Which rows may match.
            min_score: Lowest score, or None.

        Raises:
            ValueError: the vector has another dimension.
        """
        return self.search_batch(vector[np.newaxis], top_k, row_filter, min_score)[0]

    def search_batch(
        self,
        vectors: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> list[IndexHits]:
        """As ``search``, for each row of vectors (Q, D), all over one state of the index.

        Raises:
            ValueError: the vectors have another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise ValueError(f"query has shape {vectors.shape}, the index (Q, {self.dimension})")
        queries = np.ascontiguousarray(vectors, dtype=np.float32)
        snapshot = self._snapshot
        with stage("filter"):
            plans = self._plans(snapshot, row_filter)
        with stage("search") as timed:
            answers = self._answers(snapshot, plans, queries, top_k, row_filter, min_score)
            if answers:
                timed.note(
                    queries=len(answers),
                    mode=answers[0].mode.name.lower(),
                    rows_scanned=answers[0].rows_scanned,
                    rows_total=answers[0].rows_total,
                )
        return answers

    def _append(self, rows: IndexRows) -> None:
        start, count = 0, len(rows.times)
        while start < count:
            if not self._segments or not self._segments[-1].free:
                if self._segments and self._segments[-1].view.postings is None:
                    self._segments[-1] = rewritten(self._segments[-1:], self.dimension)
                self._segments.append(Segment(self.dimension, self._segment_rows))
            stop = min(count, start + self._segments[-1].free)
            self._segments[-1].append(rows, start, stop)
            start = stop

    def _plans(self, snapshot: Snapshot, row_filter: RowFilter) -> list[tuple[int, SegmentPlan]]:
        views = snapshot.views
        threads = self._threads if len(views) >= SHARED_SEGMENTS else SearchThreads(1)
        made = threads.map(
            lambda view: plan(view, row_filter, gather_rows=self._gather_rows), views
        )
        return [(number, found) for number, found in enumerate(made) if found is not None]

    def _answers(
        self,
        snapshot: Snapshot,
        plans: list[tuple[int, SegmentPlan]],
        queries: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> list[IndexHits]:
        excluded = IdSet(id_halves(list(row_filter.exclude_ids)))
        wanted, count = top_k + len(excluded), sum(found.count for _, found in plans)
        shared = count * self.dimension * len(queries) >= SHARED_PRODUCTS
        shards = self._threads.map(
            lambda shard: compare(shard, queries, wanted, self._margin),
            self._threads.shards(plans) if shared else [plans],
        )
        scanned = any(found.rows is None for _, found in plans) or not snapshot.living
        answers = []
        for place, query in enumerate(queries):
            best = Candidates(wanted, self._margin)
            best.take(shard[place] for shard in shards)
            ranked = rank(snapshot.views, best, query, top_k, excluded, min_score)
            answers.append(
                IndexHits(
                    ids=ranked.ids,
                    scores=ranked.scores,
                    mode=SearchMode.EXACT_SCAN if scanned else SearchMode.EXACT_GATHER,
                    rows_scanned=count,
                    rows_total=snapshot.living,
                )
            )
        return answers

    def _removed(self, removed: int) -> int:
        if removed:
            self._segments = [segment for segment in self._segments if segment.view.living]
            self._publish()
            self.compact(most=1)
        return removed

    def _publish(self) -> None:
        self._snapshot = Snapshot(tuple(segment.view for segment in self._segments))
