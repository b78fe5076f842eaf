"""The index against a search written out in plain Python: same ids, same scores, same order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.domain.crop import AttributeTerm
from service.domain.ports import CameraSpan, RowFilter
from service.domain.query import SearchMode
from service.gallery.index import SegmentedIndex
from service.gallery.search_threads import SearchThreads
from service.gallery.segment import Segment
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

DIMENSION = 24
ZONES = ["", "gate", "hall", "nowhere"]
TRACKS = ["", "t1", "t2", "t3", "t9"]
KEYS = ["bag", "coat", "hat"]
COLOURS = ["red", "blue", "green"]

TERMS = st.lists(
    st.builds(AttributeTerm, st.sampled_from(KEYS), st.lists(st.sampled_from(COLOURS), max_size=2)),
    max_size=2,
)
TIMES = st.integers(-5, 25)
FILTERS = st.builds(
    RowFilter,
    include_cameras=st.none() | st.frozensets(st.integers(0, 6), max_size=4),
    exclude_cameras=st.frozensets(st.integers(0, 6), max_size=2),
    start=st.none() | TIMES,
    end=st.none() | TIMES,
    include_zones=st.none() | st.frozensets(st.sampled_from(ZONES), max_size=3),
    exclude_zones=st.frozensets(st.sampled_from(ZONES), max_size=1),
    include_tracks=st.none() | st.frozensets(st.sampled_from(TRACKS), max_size=3),
    exclude_tracks=st.frozensets(st.sampled_from(TRACKS), max_size=2),
    include_attributes=TERMS,
    exclude_attributes=TERMS,
    exclude_spans=st.lists(st.builds(CameraSpan, st.integers(0, 4), TIMES, TIMES), max_size=2),
)
# Conditions that leave something over are as likely as those that leave nothing.
FILTERS = FILTERS | st.builds(
    RowFilter, include_cameras=st.none() | st.frozensets(st.integers(0, 6)), start=TIMES
)


class IndexMachine(RuleBasedStateMachine):
    """Changes and searches in any order; every answer must equal the brute force."""

    @initialize(
        segment_rows=st.sampled_from([1, 8, 30, 1000]),
        gather_rows=st.sampled_from([0, 3, 1000]),
        threads=st.sampled_from([1, 3]),
        seed=st.integers(0, 2**32 - 1),
    )
    def begin(self, segment_rows: int, gather_rows: int, threads: int, seed: int) -> None:
        self.threads = SearchThreads(threads)
        self.index = SegmentedIndex(
            DIMENSION, gather_rows=gather_rows, segment_rows=segment_rows, threads=self.threads
        )
        self.caller = ThreadPoolExecutor(1)
        self.rng = np.random.default_rng(seed)
        self.rows: dict[UUID, Row] = {}
        self.clock = 0
        # Few distinct vectors, so that exact ties are common.
        self.pool = unit(self.rng.standard_normal((7, DIMENSION)))

    def teardown(self) -> None:
        if hasattr(self, "caller"):
            self.caller.shutdown()
            self.threads.close()

    def new_row(self, ties: bool) -> Row:
        rng = self.rng
        vector = self.pool[rng.integers(7)] if ties else unit(rng.standard_normal(DIMENSION))
        return Row(
            crop_id=UUID(bytes=rng.bytes(16)),
            vector=vector,
            camera=int(rng.integers(5)),
            # Mostly in order, so that segments differ in time.
            time=self.clock // 8 + int(rng.integers(4)),
            zone=ZONES[rng.integers(3)],
            track=TRACKS[rng.integers(4)],
            attributes={key: COLOURS[rng.integers(3)] for key in KEYS if rng.random() < 0.5},
        )

    @rule(count=st.integers(1, 40), ties=st.booleans())
    def add(self, count: int, ties: bool) -> None:
        added = [self.new_row(ties) for _ in range(count)]
        self.clock = (self.clock + count) % 160
        self.changed(
            lambda: self.index.add(as_rows(added)),
            {**self.rows, **{row.crop_id: row for row in added}},
        )

    @rule(share=st.floats(0, 1), strangers=st.integers(0, 6))
    def remove(self, share: float, strangers: int) -> None:
        chosen = [crop_id for crop_id in self.rows if self.rng.random() < share]
        unknown = [UUID(bytes=self.rng.bytes(16)) for _ in range(strangers)]
        # Half an id is not an id.
        unknown += [UUID(int=crop_id.int ^ 1 << 100) for crop_id in list(self.rows)[:strangers]]
        left = {crop_id: row for crop_id, row in self.rows.items() if crop_id not in set(chosen)}
        assert self.changed(lambda: self.index.remove(chosen + unknown), left) == len(chosen)
        assert self.index.remove(chosen) == 0

    @rule(time=TIMES)
    def drop_before(self, time: int) -> None:
        left = {crop_id: row for crop_id, row in self.rows.items() if row.time >= time}
        gone = len(self.rows) - len(left)
        assert self.changed(lambda: self.index.drop_before(time), left) == gone

    @rule(most=st.none() | st.integers(0, 2))
    def compact(self, most: int | None) -> None:
        self.changed(lambda: self.index.compact(most=most), self.rows)
        if most is None:
            assert self.index.compact() == 0

    def changed(self, change: Callable[[], int | None], after: dict[UUID, Row]) -> int | None:
        """Make a change while another thread searches: it sees the state before or after."""
        query, before = self.pool[0], self.rows
        racing = self.caller.submit(self.index.search, query, 5, RowFilter(start=3), None)
        outcome = change()
        hits = racing.result()
        answer = list(zip(hits.ids, hits.scores.tolist(), strict=True))
        expected = [
            brute_force(list(rows.values()), query, 5, RowFilter(start=3), None)[0]
            for rows in (before, after)
        ]
        assert answer in expected
        assert hits.rows_total in (len(before), len(after))
        self.rows = after
        return outcome

    @rule(
        top_k=st.sampled_from([1, 2, 5, 50, 1000]),
        chosen=FILTERS,
        min_score=st.none() | st.floats(-1, 1),
        queries=st.sampled_from([1, 2, 9]),
        from_pool=st.booleans(),
        without=st.integers(0, 6),
    )
    def search(
        self,
        top_k: int,
        chosen: RowFilter,
        min_score: float | None,
        queries: int,
        from_pool: bool,
        without: int,
    ) -> None:
        vectors = unit(self.rng.standard_normal((queries, DIMENSION)))
        if from_pool:
            vectors[0] = self.pool[0]
        chosen = replace(chosen, exclude_ids=frozenset(sorted(self.rows)[:without]))
        if queries == 1:
            answers = [self.index.search(vectors[0], top_k, chosen, min_score)]
        else:
            answers = self.index.search_batch(vectors, top_k, chosen, min_score)
        assert len(answers) == queries
        for vector, hits in zip(vectors, answers, strict=True):
            expected, passing = brute_force(
                list(self.rows.values()), vector, top_k, chosen, min_score
            )
            assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
            assert hits.rows_scanned == passing
            assert hits.rows_total == len(self.rows)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "index"):
            assert len(self.index) == len(self.rows)
            ids = self.index.snapshot.ids().tolist()
            assert {UUID(int=high << 64 | low) for high, low in ids} == set(self.rows)
            assert len(ids) == len(self.rows)


IndexMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestIndexMachine = IndexMachine.TestCase


def plain(count: int, **columns: Callable[[int], object]) -> list[Row]:
    """Rows with ids 1, 2, 3, ..., random vectors and the given columns by number."""
    rng = np.random.default_rng(0)
    return [
        Row(
            UUID(int=number + 1),
            unit(rng.standard_normal(DIMENSION)),
            **{name: column(number) for name, column in columns.items()},  # type: ignore[arg-type]
        )
        for number in range(count)
    ]


@given(
    gather_rows=st.sampled_from([0, 10_000]),
    segment_rows=st.sampled_from([90, 1000]),
    top_k=st.integers(1, 60),
    queries=st.sampled_from([1, 2, 8]),
    excluding=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_near_ties_beyond_float32_are_ranked_as_defined(
    gather_rows: int, segment_rows: int, top_k: int, queries: int, excluding: bool, seed: int
) -> None:
    """Hundreds of rows whose float32 scores cannot tell them apart."""
    rng = np.random.default_rng(seed)
    base = unit(rng.standard_normal(512))
    vectors = unit(base + 1e-5 * rng.standard_normal((600, 512)))
    rows = [
        Row(UUID(bytes=rng.bytes(16)), vector, camera=int(rng.integers(3))) for vector in vectors
    ]
    index = SegmentedIndex(512, gather_rows=gather_rows, segment_rows=segment_rows)
    index.add(as_rows(rows))
    chosen = RowFilter(exclude_cameras=frozenset([1] if excluding else []))
    batch = np.stack([base] * queries)
    expected, _ = brute_force(rows, base, top_k, chosen, None)
    for hits in index.search_batch(batch, top_k, chosen, None):
        assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


def test_times_are_half_open_at_every_segment_border() -> None:
    """Every range and span there is, over segments that begin and end at every time."""
    rows = plain(24, time=lambda number: number // 3, camera=lambda number: number % 2)
    index = SegmentedIndex(DIMENSION, segment_rows=4, gather_rows=2)
    index.add(as_rows(rows))
    query = rows[0].vector
    for start in range(-1, 10):
        for end in range(start, 10):
            for chosen in (
                RowFilter(start=start),
                RowFilter(end=end),
                RowFilter(start=start, end=end),
                RowFilter(exclude_spans=[CameraSpan(1, start, end)]),
            ):
                hits = index.search(query, 100, chosen, None)
                expected, _ = brute_force(rows, query, 100, chosen, None)
                assert list(hits.ids) == [crop_id for crop_id, _ in expected], chosen


def test_mode_follows_the_number_of_rows() -> None:
    rows = plain(100, camera=lambda number: number % 10)
    index = SegmentedIndex(DIMENSION, gather_rows=10)
    index.add(as_rows(rows))
    query = rows[0].vector
    everything = index.search(query, 5, RowFilter(), None)
    assert (everything.mode, everything.rows_scanned) == (SearchMode.EXACT_SCAN, 100)
    few = index.search(query, 5, RowFilter(include_cameras=frozenset([3])), None)
    assert (few.mode, few.rows_scanned) == (SearchMode.EXACT_GATHER, 10)
    many = index.search(query, 5, RowFilter(exclude_cameras=frozenset([3])), None)
    assert (many.mode, many.rows_scanned) == (SearchMode.EXACT_SCAN, 90)


def test_empty_index_answers_nothing() -> None:
    hits = SegmentedIndex(4).search(np.array([1, 0, 0, 0], np.float32), 3, RowFilter(), None)
    assert (list(hits.ids), len(hits.scores), hits.rows_total) == ([], 0, 0)
    assert SegmentedIndex(4).search_batch(np.empty((0, 4), np.float32), 3, RowFilter(), None) == []


def test_a_query_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        SegmentedIndex(4).search(np.ones(5, np.float32), 3, RowFilter(), None)


def test_rows_that_do_not_fit_each_other_change_nothing() -> None:
    index = SegmentedIndex(DIMENSION)
    rows = as_rows(plain(3))
    for broken in (
        replace(rows, zones=["one"]),
        replace(rows, ids=rows.ids[:2]),
        replace(rows, vectors=rows.vectors[:, :5]),
    ):
        with pytest.raises(ValueError, match="fit"):
            index.add(broken)
    assert len(index) == 0


def test_an_addition_that_fails_half_way_can_be_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = plain(40)
    index = SegmentedIndex(DIMENSION, segment_rows=16)
    index.add(as_rows(rows[:10]))
    append, calls = Segment.append, iter(range(100))

    def failing(segment: Segment, *arguments: Any) -> None:
        if next(calls) == 2:
            raise MemoryError
        append(segment, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "append", failing)
        with pytest.raises(MemoryError):
            index.add(as_rows(rows[10:]))
    assert len(index) == 10
    index.add(as_rows(rows[10:]))
    query = rows[0].vector
    hits = index.search(query, 100, RowFilter(), None)
    expected, _ = brute_force(rows, query, 100, RowFilter(), None)
    assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


def test_removed_rows_leave_memory_after_a_while() -> None:
    rows = plain(1000, time=lambda number: number)
    index = SegmentedIndex(DIMENSION)
    index.add(as_rows(rows))
    full = index.nbytes
    index.remove([row.crop_id for row in rows[:150]])
    assert index.tombstones == 150
    index.remove([row.crop_id for row in rows[150:600]])
    assert (index.tombstones, len(index)) == (0, 400)
    # The vocabularies do not shrink in proportion.
    assert 0.4 * full <= index.nbytes < 0.42 * full


def test_removed_words_leave_memory_with_their_rows() -> None:
    rows = plain(
        100, track=lambda number: f"secret-{number}", attributes=lambda number: {"n": str(number)}
    )
    index = SegmentedIndex(DIMENSION, segment_rows=50)
    index.add(as_rows(rows))
    index.remove([row.crop_id for row in rows[:40]])
    index.compact()
    words = [view.words for view in index.snapshot.views]
    tracks = {track for each in words for track in each.tracks.values}
    assert tracks == {f"secret-{number}" for number in range(40, 100)}
    codes = sum(len(each.attributes) for each in words)
    assert codes <= 60 + len(words)


def test_an_old_segment_is_dropped_whole_and_small_ones_are_merged() -> None:
    rows = plain(100, time=lambda number: number)
    index = SegmentedIndex(DIMENSION, segment_rows=10)
    index.add(as_rows(rows))
    kept = {view.serial for view in index.snapshot.views[4:]}
    assert index.drop_before(35) == 35
    assert len(index.snapshot.views) == 7
    assert kept <= {view.serial for view in index.snapshot.views}, "rewritten without need"
    # One in two is left: pairs fit into one segment.
    index.remove([row.crop_id for row in rows[35::2]])
    index.compact()
    assert (index.tombstones, len(index)) == (0, 32)
    assert len(index.snapshot.views) <= 6


def test_growing_copies_nothing() -> None:
    index = SegmentedIndex(DIMENSION, segment_rows=64)
    rows = plain(200)
    addresses: dict[tuple[int, int], int] = {}
    for start in range(0, 200, 10):
        index.add(as_rows(rows[start : start + 10]))
        for view in index.snapshot.views:
            address = view.columns.vectors.__array_interface__["data"][0]
            assert addresses.setdefault((view.serial, 0), address) == address


def test_a_snapshot_stays_as_it_is() -> None:
    rows = plain(100)
    index = SegmentedIndex(DIMENSION, segment_rows=32)
    index.add(as_rows(rows))
    before = index.snapshot
    vectors = [view.columns.vectors.copy() for view in before.views]
    index.remove([row.crop_id for row in rows[::2]])
    index.compact()
    index.add(as_rows([replace(row, crop_id=UUID(int=1000 + row.crop_id.int)) for row in rows]))
    assert before.living == 100
    for view, vector in zip(before.views, vectors, strict=True):
        np.testing.assert_array_equal(view.columns.vectors, vector)


def test_searches_during_changes_see_one_state() -> None:
    """Vectors are one-hot by id, so any torn row would show a score that its id cannot have."""
    index = SegmentedIndex(64, segment_rows=500)
    stop = threading.Event()
    failures: list[object] = []

    def one_hot(position: int) -> np.ndarray:
        return np.eye(64, dtype=np.float32)[position % 64]

    def reader(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            axis = int(rng.integers(64))
            hits = index.search(
                one_hot(axis), 500, RowFilter(include_tracks=frozenset([f"t{axis}"])), 0.5
            )
            wrong = [hit for hit in hits.ids if hit.int % 64 != axis]
            if wrong or list(hits.ids) != sorted(hits.ids):
                failures.append((axis, wrong))

    readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(2)]
    for thread in readers:
        thread.start()
    for start in range(1, 6000, 50):
        rows = [Row(UUID(int=n), one_hot(n), track=f"t{n % 64}") for n in range(start, start + 50)]
        index.add(as_rows(rows))
        index.remove([UUID(int=n) for n in range(start, start + 50, 3)])
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures
