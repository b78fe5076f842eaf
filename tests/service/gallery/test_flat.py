"""The index against a search written out in plain Python: same ids, same scores, same order."""

from __future__ import annotations

import math
import threading
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from service.domain.ports import IndexRows, RowFilter
from service.domain.query import SearchMode
from service.gallery.columns import id_halves
from service.gallery.flat import FlatIndex

DIMENSION = 24


def unit(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=-1, keepdims=True)).astype(np.float32)


def brute_force(
    rows: dict[UUID, tuple[int, int, np.ndarray]],
    query: np.ndarray,
    top_k: int,
    chosen: RowFilter,
    min_score: float | None,
) -> tuple[list[tuple[UUID, float]], int]:
    """Row by row; the exact sum of exact products, rounded to float32."""
    passing = 0
    found = []
    for crop_id, (camera, time, vector) in rows.items():
        if chosen.include_cameras is not None and camera not in chosen.include_cameras:
            continue
        if camera in chosen.exclude_cameras:
            continue
        if chosen.start is not None and time < chosen.start:
            continue
        if chosen.end is not None and time >= chosen.end:
            continue
        passing += 1
        products = [float(a) * float(b) for a, b in zip(vector, query, strict=True)]
        score = float(np.float32(math.fsum(products)))
        if crop_id in chosen.exclude_ids or (
            min_score is not None and score < float(np.float32(min_score))
        ):
            continue
        found.append((crop_id, score))
    found.sort(key=lambda hit: (-hit[1], hit[0].int))
    return found[:top_k], passing


def as_rows(items: list[tuple[UUID, int, int, np.ndarray]]) -> IndexRows:
    return IndexRows(
        ids=id_halves([item[0] for item in items]),
        cameras=np.array([item[1] for item in items], np.int32),
        times=np.array([item[2] for item in items], np.int64),
        vectors=np.stack([item[3] for item in items]),
    )


FILTERS = st.builds(
    RowFilter,
    include_cameras=st.none() | st.frozensets(st.integers(0, 6), max_size=4),
    exclude_cameras=st.frozensets(st.integers(0, 6), max_size=2),
    start=st.none() | st.integers(-5, 25),
    end=st.none() | st.integers(-5, 25),
)


class IndexMachine(RuleBasedStateMachine):
    """Adds, removes and searches in any order; every answer must equal the brute force."""

    @initialize(gather_rows=st.sampled_from([0, 3, 1000]), seed=st.integers(0, 2**32 - 1))
    def begin(self, gather_rows: int, seed: int) -> None:
        self.index = FlatIndex(DIMENSION, gather_rows=gather_rows)
        self.rng = np.random.default_rng(seed)
        self.rows: dict[UUID, tuple[int, int, np.ndarray]] = {}
        # Few distinct vectors, so that exact ties are common.
        self.pool = unit(self.rng.standard_normal((7, DIMENSION)))

    @rule(count=st.integers(1, 40), ties=st.booleans())
    def add(self, count: int, ties: bool) -> None:
        items = []
        for _ in range(count):
            crop_id = UUID(bytes=self.rng.bytes(16))
            vector = self.pool[self.rng.integers(7)]
            if not ties:
                vector = unit(self.rng.standard_normal(DIMENSION))
            camera, time = int(self.rng.integers(5)), int(self.rng.integers(20))
            self.rows[crop_id] = (camera, time, vector)
            items.append((crop_id, camera, time, vector))
        self.index.add(as_rows(items))

    @rule(share=st.floats(0, 1), strangers=st.integers(0, 2))
    def remove(self, share: float, strangers: int) -> None:
        chosen = [crop_id for crop_id in self.rows if self.rng.random() < share]
        unknown = [UUID(bytes=self.rng.bytes(16)) for _ in range(strangers)]
        assert self.index.remove(chosen + unknown) == len(chosen)
        assert self.index.remove(chosen) == 0
        for crop_id in chosen:
            del self.rows[crop_id]

    @rule(
        top_k=st.sampled_from([1, 2, 5, 50, 1000]),
        chosen=FILTERS,
        min_score=st.none() | st.floats(-1, 1),
        from_pool=st.booleans(),
        without=st.integers(0, 2),
    )
    def search(
        self,
        top_k: int,
        chosen: RowFilter,
        min_score: float | None,
        from_pool: bool,
        without: int,
    ) -> None:
        query = self.pool[0] if from_pool else unit(self.rng.standard_normal(DIMENSION))
        excluded = frozenset(sorted(self.rows)[:without])
        chosen = RowFilter(
            chosen.include_cameras, chosen.exclude_cameras, chosen.start, chosen.end, excluded
        )
        hits = self.index.search(query, top_k, chosen, min_score)
        expected, passing = brute_force(self.rows, query, top_k, chosen, min_score)
        assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
        assert hits.rows_scanned == passing
        assert hits.rows_total == len(self.rows)

    @invariant()
    def counts(self) -> None:
        assert len(self.index) == len(self.rows)


IndexMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestIndexMachine = IndexMachine.TestCase


@given(gather_rows=st.sampled_from([0, 10_000]), top_k=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_near_ties_beyond_float32_are_ranked_as_defined(
    gather_rows: int, top_k: int, seed: int
) -> None:
    """Hundreds of rows whose float32 scores cannot tell them apart."""
    rng = np.random.default_rng(seed)
    base = unit(rng.standard_normal(512))
    vectors = unit(base + 1e-5 * rng.standard_normal((600, 512)))
    rows = {
        UUID(bytes=rng.bytes(16)): (int(rng.integers(3)), index, vector)
        for index, vector in enumerate(vectors)
    }
    index = FlatIndex(512, gather_rows=gather_rows)
    index.add(as_rows([(crop_id, *values) for crop_id, values in rows.items()]))
    chosen = RowFilter(exclude_cameras=frozenset([1]))
    hits = index.search(base, top_k, chosen, None)
    expected, _ = brute_force(rows, base, top_k, chosen, None)
    assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


def test_mode_follows_the_number_of_rows() -> None:
    rng = np.random.default_rng(0)
    items = [
        (UUID(int=index + 1), index % 10, index, unit(rng.standard_normal(DIMENSION)))
        for index in range(100)
    ]
    index = FlatIndex(DIMENSION, gather_rows=10)
    index.add(as_rows(items))
    query = items[0][3]
    everything = index.search(query, 5, RowFilter(), None)
    assert (everything.mode, everything.rows_scanned) == (SearchMode.EXACT_SCAN, 100)
    few = index.search(query, 5, RowFilter(include_cameras=frozenset([3])), None)
    assert (few.mode, few.rows_scanned) == (SearchMode.EXACT_GATHER, 10)
    many = index.search(query, 5, RowFilter(exclude_cameras=frozenset([3])), None)
    assert (many.mode, many.rows_scanned) == (SearchMode.EXACT_SCAN, 90)


def test_empty_index_answers_nothing() -> None:
    hits = FlatIndex(4).search(np.array([1, 0, 0, 0], np.float32), 3, RowFilter(), None)
    assert (list(hits.ids), len(hits.scores), hits.rows_total) == ([], 0, 0)


def test_a_query_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        FlatIndex(4).search(np.ones(5, np.float32), 3, RowFilter(), None)


def test_removed_rows_leave_memory_after_a_while() -> None:
    rng = np.random.default_rng(0)
    items = [
        (UUID(int=index + 1), 0, index, unit(rng.standard_normal(DIMENSION)))
        for index in range(1000)
    ]
    index = FlatIndex(DIMENSION)
    index.add(as_rows(items))
    full = index.nbytes
    index.remove([item[0] for item in items[:150]])
    assert index.tombstones == 150
    index.remove([item[0] for item in items[150:600]])
    assert (index.tombstones, len(index)) == (0, 400)
    assert index.nbytes == full * 400 // 1000


def test_searches_during_changes_see_one_state() -> None:
    """Vectors are one-hot by id, so any torn row would show a score that its id cannot have."""
    index = FlatIndex(64)
    stop = threading.Event()
    failures: list[object] = []

    def one_hot(position: int) -> np.ndarray:
        return np.eye(64, dtype=np.float32)[position % 64]

    def reader(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not stop.is_set():
            axis = int(rng.integers(64))
            hits = index.search(one_hot(axis), 500, RowFilter(start=0), 0.5)
            wrong = [hit for hit in hits.ids if hit.int % 64 != axis]
            if wrong or list(hits.ids) != sorted(hits.ids):
                failures.append((axis, wrong))

    readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(2)]
    for thread in readers:
        thread.start()
    for start in range(1, 6000, 50):
        items = [(UUID(int=n), 0, n, one_hot(n)) for n in range(start, start + 50)]
        index.add(as_rows(items))
        index.remove([UUID(int=n) for n in range(start, start + 50, 3)])
    stop.set()
    for thread in readers:
        thread.join()
    assert not failures
