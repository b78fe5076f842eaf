"""Full segments put in order of cameras: no row loses a part of itself, no filter a row."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

import numpy as np
import pytest

from service.domain.crop import AttributeTerm
from service.domain.ports import CameraSpan, RowFilter
from service.gallery.index import SegmentedIndex
from service.gallery.planner import plan
from service.gallery.segment import Segment
from service.gallery.vocabulary import Vocabulary
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

DIMENSION = 12


def made_rows(count: int, first: int = 0) -> list[Row]:
    """Rows whose every column differs in its own rhythm; attributes mostly unique."""
    rng = np.random.default_rng(first)
    return [
        Row(
            UUID(int=number + 1),
            unit(rng.standard_normal(DIMENSION)),
            camera=int(rng.integers(6)),
            time=int(rng.integers(50)),
            zone=["", "gate", "hall"][rng.integers(3)],
            track=f"t{number // 4}",
            attributes={"n": str(number), "coat": ["red", "blue"][number % 2]},
        )
        for number in range(first, first + count)
    ]


def held(index: SegmentedIndex) -> dict[UUID, tuple[object, ...]]:
    """Every living row by id, its codes turned back into words."""
    found: dict[UUID, tuple[object, ...]] = {}
    for view in index.snapshot.views:
        columns, words = view.columns, view.words
        for row in view.living_rows().tolist():
            high, low = columns.ids[row].tolist()
            found[UUID(int=high << 64 | low)] = (
                columns.vectors[row].tobytes(),
                words.cameras.values[columns.cameras[row]],
                int(columns.times[row]),
                words.zones.values[columns.zones[row]],
                words.tracks.values[columns.tracks[row]],
                words.attributes.mapping(int(columns.attributes[row])),
            )
    return found


def given(rows: Iterable[Row]) -> dict[UUID, tuple[object, ...]]:
    return {
        row.crop_id: (
            row.vector.tobytes(),
            row.camera,
            row.time,
            row.zone,
            row.track,
            dict(row.attributes),
        )
        for row in rows
    }


def test_a_full_segment_lies_in_order_of_cameras_and_times() -> None:
    rows = made_rows(130)
    index = SegmentedIndex(DIMENSION, segment_rows=50)
    for start in range(0, 130, 13):
        index.add(as_rows(rows[start : start + 13]))
    *sealed, last = index.snapshot.views
    assert [view.rows for view in index.snapshot.views] == [50, 50, 30]
    assert last.postings is None
    for view in sealed:
        keys = list(zip(view.columns.cameras.tolist(), view.columns.times.tolist(), strict=True))
        assert keys == sorted(keys)
        assert view.postings is not None
        assert view.postings.cameras.order is None
    assert held(index) == given(rows)


def test_merged_and_rewritten_segments_are_sealed_too() -> None:
    rows = made_rows(200)
    index = SegmentedIndex(DIMENSION, segment_rows=40)
    index.add(as_rows(rows))
    index.remove([row.crop_id for row in rows if row.crop_id.int % 3])
    index.compact()
    assert index.tombstones == 0
    assert len(index.snapshot.views) < 5
    for view in index.snapshot.views[:-1]:
        assert view.postings is not None
        assert (np.diff(view.columns.cameras) >= 0).all()
    assert held(index) == given(row for row in rows if not row.crop_id.int % 3)


FILTERS = [
    RowFilter(include_cameras=frozenset([2])),
    RowFilter(include_cameras=frozenset([0, 2, 5])),
    RowFilter(exclude_cameras=frozenset([1])),
    RowFilter(include_cameras=frozenset([4]), start=10, end=40),
    RowFilter(include_cameras=frozenset([4]), include_zones=frozenset(["gate", "hall"])),
    RowFilter(exclude_zones=frozenset(["gate"]), exclude_cameras=frozenset([0])),
    RowFilter(include_tracks=frozenset(["t1", "t3", "t22", "unknown"])),
    RowFilter(include_attributes=[AttributeTerm("n", ["7", "8", "120"])]),
    RowFilter(include_attributes=[AttributeTerm("coat", ["red"]), AttributeTerm("n")]),
    RowFilter(include_attributes=[AttributeTerm("n")], exclude_cameras=frozenset([3])),
    RowFilter(exclude_attributes=[AttributeTerm("coat", ["red"])], start=25),
    RowFilter(include_cameras=frozenset([3]), exclude_spans=[CameraSpan(3, 10, 30)]),
    RowFilter(exclude_spans=[CameraSpan(3, 10, 30), CameraSpan(1, 0, 99)]),
]


@pytest.mark.parametrize("gather_rows", [0, 4, 1000])
@pytest.mark.parametrize("removed", [0, 5])
def test_filters_on_sealed_segments_equal_brute_force(gather_rows: int, removed: int) -> None:
    rows = made_rows(230)
    index = SegmentedIndex(DIMENSION, segment_rows=60, gather_rows=gather_rows)
    index.add(as_rows(rows))
    left = [row for row in rows if not removed or row.crop_id.int % 9 != removed]
    index.remove([row.crop_id for row in rows if row not in left])
    assert bool(index.tombstones) == bool(removed)
    query = unit(np.random.default_rng(7).standard_normal(DIMENSION))
    for chosen in FILTERS:
        for top_k in (3, 500):
            expected, passing = brute_force(left, query, top_k, chosen, None)
            hits = index.search(query, top_k, chosen, None)
            assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected, chosen
            assert hits.rows_scanned == passing


def test_rows_of_cameras_are_gathered_however_many_they_are() -> None:
    index = SegmentedIndex(DIMENSION, segment_rows=60)
    index.add(as_rows(made_rows(61)))
    sealed = index.snapshot.views[0]
    cameras = plan(sealed, RowFilter(exclude_cameras=frozenset([2])), gather_rows=5)
    assert cameras is not None
    assert cameras.rows is not None
    assert cameras.count > 5
    zones = plan(sealed, RowFilter(exclude_zones=frozenset(["gate"])), gather_rows=5)
    assert zones is not None
    assert zones.rows is None


class _Growing(Vocabulary[int]):
    """Another thread adds the words just before they are looked up."""

    def find(self, values: Iterable[int]) -> list[int]:
        asked = list(values)
        self.encode(asked)
        return super().find(asked)


@pytest.mark.parametrize(
    "chosen",
    [
        RowFilter(include_cameras=frozenset([0, 77])),
        RowFilter(exclude_cameras=frozenset([0, 78])),
        RowFilter(include_cameras=frozenset([0, 79]), exclude_cameras=frozenset([80])),
    ],
)
def test_words_that_come_meanwhile_are_of_no_row_seen(chosen: RowFilter) -> None:
    rows = made_rows(30)
    segment = Segment(DIMENSION, 60)
    growing = _Growing()
    object.__setattr__(segment.words, "cameras", growing)
    segment.append(as_rows(rows), 0, 30)
    made = plan(segment.view, chosen, gather_rows=1000)
    assert made is not None
    _, passing = brute_force(rows, rows[0].vector, 1, chosen, None)
    assert made.count == passing
