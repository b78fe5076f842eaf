"""The GalleryIndex port: what every adapter must answer, against a search in plain Python."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from service.domain.crop import AttributeTerm
from service.domain.ports import CameraSpan, GalleryIndex, RowFilter
from tests.contract.adapters import Adapter, every_adapter
from tests.contract.machine import IndexMachine
from tests.service.gallery.brute_force import Row, as_rows, brute_force, unit

HOUR = 3_600_000_000

# Texts that could end a literal, a list or an expression somewhere on their way.
HOSTILE = [
    'a" or id != "',
    "a' or 1 == 1 or zone == '",
    "back\\slash",
    'trailing\\"',
    "{template}",
    "100% _like_",
    "key=value",
    "[1, 2]",
    "漢字 ñ 😀",
    "a,b;c -- d /* e */",
    "null",
    "",
]


@pytest.fixture
def index(adapter: Adapter) -> Iterator[GalleryIndex]:
    """An empty index of 512 values a vector."""
    with adapter.opened(512, 1) as opened:
        yield opened


@pytest.fixture
def small(adapter: Adapter) -> Iterator[GalleryIndex]:
    """An empty index of 24 values a vector."""
    with adapter.opened(24, 2) as opened:
        yield opened


@every_adapter
def test_any_history_answers_as_the_brute_force(adapter: Adapter) -> None:
    machine: Any = partial(IndexMachine, adapter)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=adapter.examples,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
            phases=[each for each in Phase if adapter.shrinks or each is not Phase.shrink],
        ),
    )


@every_adapter
@pytest.mark.parametrize(("top_k", "queries"), [(1, 1), (25, 2), (60, 8)])
def test_near_ties_beyond_the_precision_of_the_scan(
    index: GalleryIndex, top_k: int, queries: int
) -> None:
    """Hundreds of rows whose float32 scores cannot tell them apart."""
    rng = np.random.default_rng(top_k)
    base = unit(rng.standard_normal(512))
    vectors = unit(base + 1e-5 * rng.standard_normal((250, 512)))
    rows = [
        Row(UUID(bytes=rng.bytes(16)), vector, camera=int(rng.integers(3))) for vector in vectors
    ]
    index.add(as_rows(rows))
    for chosen in (RowFilter(), RowFilter(exclude_cameras=frozenset([1]))):
        expected, _ = brute_force(rows, base, top_k, chosen, None)
        for hits in index.search_batch(np.stack([base] * queries), top_k, chosen, None):
            assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


@every_adapter
def test_exact_ties_are_ranked_by_id(small: GalleryIndex) -> None:
    """Every row the same vector: the ids alone decide, in whatever order they came."""
    rng = np.random.default_rng(0)
    vector = unit(rng.standard_normal(24))
    numbers = rng.permutation(200).tolist()
    # Ids that share an upper half, and ids that share a lower one.
    rows = [Row(UUID(int=(n % 7) << 64 | (1 << 63) + n), vector) for n in numbers]
    small.add(as_rows(rows))
    for top_k in (1, 10, 199, 200, 2000):
        hits = small.search(vector, top_k, RowFilter(), None)
        assert list(hits.ids) == sorted(row.crop_id for row in rows)[:top_k]
        assert len(set(hits.scores.tolist())) == 1


@every_adapter
def test_an_empty_index_answers_nothing(small: GalleryIndex) -> None:
    query = unit(np.ones(24))
    hits = small.search(query, 3, RowFilter(), None)
    assert (list(hits.ids), len(hits.scores), hits.rows_scanned, hits.rows_total) == ([], 0, 0, 0)
    assert small.search_batch(np.empty((0, 24), np.float32), 3, RowFilter(), None) == []
    places, vectors = small.vectors_of([UUID(int=1)])
    assert (len(places), vectors.shape) == (0, (0, 24))
    assert (len(small), small.remove([UUID(int=1)]), small.remove([])) == (0, 0, 0)
    assert small.drop_before(10) == 0


@every_adapter
def test_a_query_of_another_dimension_is_refused(small: GalleryIndex) -> None:
    with pytest.raises(ValueError, match="shape"):
        small.search(np.ones(5, np.float32), 3, RowFilter(), None)


@every_adapter
def test_rows_that_do_not_fit_each_other_change_nothing(small: GalleryIndex) -> None:
    rows = as_rows([Row(UUID(int=n), unit(np.eye(24)[n])) for n in range(3)])
    for broken in (
        replace(rows, zones=["one"]),
        replace(rows, ids=rows.ids[:2]),
        replace(rows, vectors=rows.vectors[:, :5]),
    ):
        with pytest.raises(ValueError, match="fit"):
            small.add(broken)
    assert len(small) == 0


@every_adapter
def test_columns_may_be_left_out(small: GalleryIndex) -> None:
    """None for zones, tracks and attributes means that every one is empty."""
    rows = [Row(UUID(int=n), unit(np.eye(24)[n]), time=n) for n in range(6)]
    small.add(replace(as_rows(rows), zones=None, tracks=None, attributes=None))
    query = rows[0].vector
    for chosen in (
        RowFilter(include_zones=frozenset([""])),
        RowFilter(exclude_tracks=frozenset([""])),
        RowFilter(include_attributes=[AttributeTerm("bag")]),
        RowFilter(exclude_attributes=[AttributeTerm("bag")]),
    ):
        hits = small.search(query, 9, chosen, None)
        expected, _ = brute_force(rows, query, 9, chosen, None)
        assert [(i, s) for i, s in zip(hits.ids, hits.scores.tolist(), strict=True)] == expected


@every_adapter
def test_texts_of_any_kind_are_only_texts(small: GalleryIndex) -> None:
    """A value matches itself alone, whatever it would mean to a parser."""
    rng = np.random.default_rng(1)
    rows = [
        Row(
            UUID(bytes=rng.bytes(16)),
            unit(rng.standard_normal(24)),
            zone=value,
            track=value,
            attributes={value or "empty": value},
        )
        for value in HOSTILE
    ]
    small.add(as_rows(rows))
    query = rows[0].vector
    for value, row in zip(HOSTILE, rows, strict=True):
        only, key = frozenset([value]), value or "empty"
        for chosen in (
            RowFilter(include_zones=only),
            RowFilter(include_tracks=only),
            RowFilter(include_attributes=[AttributeTerm(key)]),
            RowFilter(include_attributes=[AttributeTerm(key, [value])]),
        ):
            hits = small.search(query, 50, chosen, None)
            assert list(hits.ids) == [row.crop_id], (value, chosen)
        for chosen in (
            RowFilter(exclude_zones=only),
            RowFilter(exclude_tracks=only),
            RowFilter(exclude_attributes=[AttributeTerm(key)]),
            RowFilter(exclude_attributes=[AttributeTerm(key, [value])]),
        ):
            hits = small.search(query, 50, chosen, None)
            assert set(hits.ids) == {each.crop_id for each in rows} - {row.crop_id}
            assert hits.rows_scanned == len(rows) - 1


@every_adapter
def test_thousands_of_filter_terms(small: GalleryIndex) -> None:
    """As many as limits.max_filter_terms allows at most, and a thousand cameras."""
    rng = np.random.default_rng(2)
    rows = [
        Row(UUID(bytes=rng.bytes(16)), unit(rng.standard_normal(24)), camera=n, track=f"track-{n}")
        for n in range(50)
    ]
    small.add(as_rows(rows))
    tracks = frozenset(f"track-{n}" for n in range(10, 4010))
    for chosen in (
        RowFilter(include_tracks=tracks, exclude_cameras=frozenset(range(30, 1030))),
        RowFilter(exclude_tracks=tracks),
        RowFilter(
            include_attributes=[AttributeTerm("n", [str(n) for n in range(4000)])],
        ),
    ):
        hits = small.search(rows[0].vector, 100, chosen, None)
        expected, passing = brute_force(rows, rows[0].vector, 100, chosen, None)
        assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
        assert hits.rows_scanned == passing


@every_adapter
def test_the_best_rows_may_be_excluded_by_id(small: GalleryIndex) -> None:
    """More of them than any adapter asks for to spare."""
    rng = np.random.default_rng(5)
    rows = [Row(UUID(bytes=rng.bytes(16)), unit(rng.standard_normal(24))) for _ in range(400)]
    small.add(as_rows(rows))
    query = unit(rng.standard_normal(24))
    best, _ = brute_force(rows, query, 200, RowFilter(), None)
    chosen = RowFilter(exclude_ids=frozenset(crop_id for crop_id, _ in best))
    for top_k in (1, 7, 300):
        hits = small.search(query, top_k, chosen, None)
        expected, _ = brute_force(rows, query, top_k, chosen, None)
        assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected


@every_adapter
def test_times_are_half_open_at_every_border(small: GalleryIndex) -> None:
    """Ranges and spans that begin and end at every time there is, and at midnight."""
    times = [-24 * HOUR, -1, 0, 1, 12 * HOUR, 24 * HOUR - 1, 24 * HOUR, 24 * HOUR + 1, 60 * HOUR]
    rng = np.random.default_rng(3)
    rows = [
        Row(UUID(int=n + 1), unit(rng.standard_normal(24)), camera=n % 2, time=times[n // 2])
        for n in range(2 * len(times))
    ]
    small.add(as_rows(rows))
    query = rows[0].vector
    for place, start in enumerate(times):
        for end in times[place::2]:
            for chosen in (
                RowFilter(start=start, end=end),
                RowFilter(exclude_spans=[CameraSpan(1, start, end)]),
            ):
                hits = small.search(query, 100, chosen, None)
                expected, passing = brute_force(rows, query, 100, chosen, None)
                assert list(hits.ids) == [crop_id for crop_id, _ in expected], chosen
                assert hits.rows_scanned == passing


@every_adapter
def test_the_lowest_score_is_compared_as_it_is_shown(small: GalleryIndex) -> None:
    """A row passes a ``min_score`` that is its own score, and none just above it."""
    rng = np.random.default_rng(4)
    rows = [Row(UUID(int=n + 1), unit(rng.standard_normal(24))) for n in range(30)]
    small.add(as_rows(rows))
    query = unit(rng.standard_normal(24))
    every = small.search(query, 30, RowFilter(), None)
    for place in (0, 7, 29):
        lowest = every.scores[place]
        assert len(small.search(query, 30, RowFilter(), float(lowest)).ids) == place + 1
        above = float(np.nextafter(lowest, np.float32(2)))
        assert len(small.search(query, 30, RowFilter(), above).ids) == place


@every_adapter
@pytest.mark.parametrize("by", ["id", "time"])
def test_a_row_stays_gone_when_its_id_comes_back_on_another_day(
    small: GalleryIndex, by: str
) -> None:
    """Whatever was written to a file between: dropping a day has that effect in some adapters."""
    day = 24 * HOUR
    old, new = (
        [Row(UUID(int=n + 1), unit(np.eye(24)[n + shift]), time=place * day) for n in range(4)]
        for shift, place in ((0, 1), (12, 2))
    )
    for _ in range(2):
        small.add(as_rows([Row(UUID(int=99), old[0].vector, time=0)]))
        small.add(as_rows(old))
        assert small.drop_before(day) == 1
        stay = [Row(UUID(int=98), old[0].vector, time=day + 2)]
        small.add(as_rows(stay))
        gone = (
            small.remove([row.crop_id for row in old]) if by == "id" else small.drop_before(day + 1)
        )
        assert gone == len(old)
        small.add(as_rows(new))
        for chosen in (RowFilter(), RowFilter(start=day, end=day + 2 * HOUR)):
            hits = small.search(old[0].vector, 20, chosen, None)
            expected, passing = brute_force(stay + new, old[0].vector, 20, chosen, None)
            assert list(zip(hits.ids, hits.scores.tolist(), strict=True)) == expected
            assert hits.rows_scanned == passing
        assert small.drop_before(day + 2) == 0
        assert small.drop_before(3 * day) == len(stay + new)


@every_adapter
def test_searches_during_changes_see_one_state(adapter: Adapter) -> None:
    """Vectors are one-hot by id, so any torn row would show a score that its id cannot have."""
    stop = threading.Event()
    failures: list[object] = []

    def one_hot(position: int) -> np.ndarray:
        made = np.zeros(24, np.float32)
        made[position % 24] = 1
        return made

    with adapter.opened(24, 3) as index:

        def reader(seed: int) -> None:
            rng = np.random.default_rng(seed)
            while not stop.is_set():
                axis = int(rng.integers(24))
                only = RowFilter(include_tracks=frozenset([f"t{axis}"]))
                hits = index.search(one_hot(axis), 500, only, 0.5)
                wrong = [hit for hit in hits.ids if hit.int % 24 != axis]
                # A hundred rows come and go at once; four or five of them are along an axis.
                whole = (hits.rows_total, len(hits.ids) // 4) in ((0, 0), (100, 1))
                if wrong or not whole or list(hits.ids) != sorted(hits.ids):
                    failures.append((axis, wrong, hits.rows_total, len(hits.ids)))

        readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(2)]
        for thread in readers:
            thread.start()
        for start in range(0, 600, 100):
            rows = [
                Row(UUID(int=n + 1), one_hot(n + 1), track=f"t{(n + 1) % 24}")
                for n in range(start, start + 100)
            ]
            index.add(as_rows(rows))
            assert len(index) == 100
            index.remove([row.crop_id for row in rows])
            assert len(index) == 0
        stop.set()
        for thread in readers:
            thread.join()
    assert not failures
