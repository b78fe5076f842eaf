"""What only the built-in index has: segments, modes, compaction. Its answers: tests/contract."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
import pytest

from service.domain.ports import CameraSpan, RowFilter
from service.domain.query import SearchMode
from service.gallery.index import SegmentedIndex
from service.gallery.segment import Segment
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

DIMENSION = 24


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
