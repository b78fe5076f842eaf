"""Ways between cameras, against every subset of visits."""

from __future__ import annotations

from itertools import combinations, pairwise
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resight.errors import InvalidArgument
from service.domain.crop import Crop
from service.domain.query import Match
from service.domain.trajectory import (
    HopKind,
    TravelTime,
    Visit,
    checked_travel_times,
    checked_visit_gap,
)
from service.retrieval.trajectory import best_way, conflicts, hop, visits

SECOND = 1_000_000

sightings = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.integers(0, 60),
        st.sampled_from(["", "", "t1", "t2"]),
        st.sampled_from([0.1, 0.5, 0.9]),
    ),
    max_size=12,
)
tables = st.dictionaries(
    st.sampled_from([("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")]), st.integers(0, 40)
)


def seen(rows: list[tuple[str, int, str, float]]) -> list[Match]:
    return [
        Match(Crop(UUID(int=n + 1), camera, second * SECOND, b"", track), score, score)
        for n, (camera, second, track, score) in enumerate(rows)
    ]


def table_of(least: dict[tuple[str, str], int]) -> dict[tuple[str, str], TravelTime]:
    times = [TravelTime(a, b, low, low + 10, low + 30) for (a, b), low in least.items()]
    return checked_travel_times(times, limit=100)


@given(sightings, st.integers(0, 20), st.integers(5, 60))
def test_visits_are_the_components_of_spans_closer_than_the_gap(
    rows: list[tuple[str, int, str, float]], gap: int, pause: int
) -> None:
    matches = seen(rows)
    spans: dict[object, list[Match]] = {}
    last: dict[object, tuple[int, int]] = {}
    for match in sorted(matches, key=lambda match: match.crop.capture_micros):
        crop = match.crop
        key = (crop.camera_id, crop.track_id) if crop.track_id else crop.crop_id
        part, before = last.get(key, (0, crop.capture_micros))
        part += crop.capture_micros - before > pause * SECOND
        last[key] = part, crop.capture_micros
        spans.setdefault((key, part), []).append(match)
    parts = [{m.crop.crop_id for m in span} for span in spans.values()]
    units = list(spans.values())
    joined = True
    while joined:
        joined = False
        for one, other in combinations(range(len(units)), 2):
            first, second = units[one], units[other]
            times = [[m.crop.capture_micros for m in unit] for unit in (first, second)]
            apart = max(min(times[1]) - max(times[0]), min(times[0]) - max(times[1]))
            same = first[0].crop.camera_id == second[0].crop.camera_id
            if same and apart <= gap * SECOND:
                units[one], parts[one] = first + second, parts[one] | parts[other]
                del units[other], parts[other]
                joined = True
                break
    found = visits(matches, gap, track_pause_seconds=pause)
    got = [{m.crop.crop_id for m in visit.sightings} for visit in found]
    assert sorted(map(sorted, got)) == sorted(map(sorted, parts))
    assert [v.start for v in found] == sorted(v.start for v in found)
    for visit in found:
        order = [m.crop.capture_micros for m in visit.sightings]
        assert order == sorted(order)


def test_a_name_that_a_tracker_gives_again_the_next_day_is_another_track() -> None:
    day = 86_400
    rows = [("a", 0, "17", 0.9), ("a", 50, "17", 0.9), ("b", 300, "3", 0.9),
            ("a", day, "17", 0.9), ("b", day + 300, "9", 0.9)]  # fmt: skip
    ordered = visits(seen(rows), 10)
    assert [len(visit.sightings) for visit in ordered] == [2, 1, 1, 1]
    assert best_way(ordered, table_of({("a", "b"): 60})) == [0, 1, 2, 3]


def possible(one: Visit, other: Visit, table: dict[tuple[str, str], TravelTime]) -> bool:
    time = table.get((one.camera_id, other.camera_id))
    if one.camera_id == other.camera_id or time is None:
        return True
    return other.start - one.end >= time.min_seconds * SECOND


@settings(max_examples=150, deadline=None)
@given(sightings, tables)
def test_the_way_is_the_best_of_all_possible_ones(
    rows: list[tuple[str, int, str, float]], least: dict[tuple[str, str], int]
) -> None:
    ordered, table = visits(seen(rows), 3), table_of(least)

    def worth(places: tuple[int, ...]) -> float:
        return sum(max(m.score for m in ordered[place].sightings) for place in places)

    best = max(
        worth(places)
        for count in range(len(ordered) + 1)
        for places in combinations(range(len(ordered)), count)
        if all(possible(ordered[a], ordered[b], table) for a, b in pairwise(places))
    )
    way = best_way(ordered, table)
    assert way == sorted(way)
    assert all(possible(ordered[a], ordered[b], table) for a, b in pairwise(way))
    assert worth(tuple(way)) == pytest.approx(best)
    told = conflicts(ordered, way, table)
    assert len(told) == len(ordered) - len(way), "whatever is left out is told"
    for conflict in told:
        assert conflict.seconds < conflict.min_seconds
        assert ordered[way[conflict.with_visit]] is not conflict.visit


@pytest.mark.parametrize(
    ("camera", "second", "kind", "plausibility"),
    [
        ("a", 5, HopKind.SAME_CAMERA, None),
        ("c", 5, HopKind.UNKNOWN, None),
        ("b", 10, HopKind.PLAUSIBLE, 0.0),
        ("b", 15, HopKind.PLAUSIBLE, 0.5),
        ("b", 20, HopKind.PLAUSIBLE, 1.0),
        ("b", 35, HopKind.PLAUSIBLE, 0.25),
        ("b", 41, HopKind.LATE, 0.0),
    ],
)
def test_hops_by_hand(camera: str, second: int, kind: HopKind, plausibility: float | None) -> None:
    table = checked_travel_times([TravelTime("a", "b", 10, 20, 40)], limit=1)
    one, other = (Visit([match]) for match in seen([("a", 0, "", 0.5), (camera, second, "", 0.5)]))
    found = hop(one, other, table)
    assert found is not None
    assert (found.kind, found.seconds) == (kind, second)
    assert found.plausibility == pytest.approx(plausibility)


def test_the_way_back_takes_as_long_unless_it_is_given() -> None:
    there, back = TravelTime("a", "b", 1, 2, 3), TravelTime("b", "a", 7, 8, 9)
    assert checked_travel_times([there], limit=2)["b", "a"] is there
    assert checked_travel_times([there, back], limit=2)["b", "a"] is back
    exact = checked_travel_times([TravelTime("a", "b", 5, 5, 5)], limit=1)
    one, other = (Visit([match]) for match in seen([("a", 0, "", 0.5), ("b", 5, "", 0.5)]))
    found = hop(one, other, exact)
    assert found is not None
    assert found.plausibility == 1.0


@pytest.mark.parametrize(
    ("times", "field"),
    [
        ([TravelTime("a", "a", 1, 2, 3)], "travel_times[0]"),
        ([TravelTime("a", "b", 1, 2, 3)] * 2, "travel_times[1]"),
        ([TravelTime("a", "b", 3, 2, 4)], "travel_times[0]"),
        ([TravelTime("a", "b", -1, 2, 4)], "travel_times[0]"),
        ([TravelTime("a", "b", 1, float("nan"), 4)], "travel_times[0]"),
        ([TravelTime("a", "b", 1, 2, float("inf"))], "travel_times[0]"),
        ([TravelTime("a", "b", 1, 2, 3)] * 3, "travel_times"),
    ],
)
def test_bad_travel_times_are_named(times: list[TravelTime], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        checked_travel_times(times, limit=2)
    assert caught.value.field == field


@pytest.mark.parametrize("value", [-1.0, float("nan"), 86_401.0])
def test_bad_gaps_are_named(value: float) -> None:
    assert checked_visit_gap(None) == 60.0
    with pytest.raises(InvalidArgument, match="visit_gap_seconds"):
        checked_visit_gap(value)
