"""Learned travel times: against a literal loop over all tracks, and on simulated sites."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp, kstwobign

from resight.simulate.camera import cameras
from resight.simulate.schedule import BYSTANDERS, Shot, schedule
from resight.simulate.settings import SimulationSettings
from service.domain.travel_times import LearnedPair
from service.retrieval.travel_times import Tracks, learned, shuffled, tracks_of

SECOND = 1_000_000
WHOLE: dict[str, Any] = {"horizon_seconds": 1000, "most": 1000}


def random_crops(seed: int, count: int, names: str) -> tuple[list[str], list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    chosen = [names[n] for n in rng.integers(len(names), size=count)]
    tracks = ["" if n % 5 == 0 else f"t{n}" for n in rng.integers(count // 3, size=count)]
    return chosen, tracks, rng.integers(0, 400, size=count) * SECOND


def brute_force(
    tracks: Tracks, horizon: float, lowest: float
) -> dict[tuple[str, str], list[float]]:
    """The seconds of the hops of every pair of cameras, pair of tracks by pair of tracks."""
    places = range(len(tracks.cameras))
    scores = tracks.vectors @ tracks.vectors.T

    def comparable(a: int, b: int) -> bool:
        start = tracks.starts[b]
        inside = tracks.starts[a] <= start <= tracks.ends[a] + horizon * SECOND
        return bool(inside and tracks.cameras[a] != tracks.cameras[b])

    def best(a: int, b: int) -> bool:
        if not comparable(a, b) or scores[a, b] < np.float32(lowest):
            return False
        ahead = [c for c in places if tracks.cameras[c] == tracks.cameras[b] and comparable(a, c)]
        behind = [c for c in places if tracks.cameras[c] == tracks.cameras[a] and comparable(c, b)]
        return bool(
            scores[a, b] == max(scores[a, c] for c in ahead)
            and scores[a, b] == max(scores[c, b] for c in behind)
        )

    matches = [(a, b) for a in places for b in places if best(a, b)]
    hops: dict[tuple[str, str], list[float]] = {}
    for a, b in matches:
        sooner = any(a == c and tracks.starts[d] < tracks.starts[b] for c, d in matches)
        later = any(b == d and tracks.ends[c] > tracks.ends[a] for c, d in matches)
        if not sooner and not later:
            pair = tracks.cameras[a], tracks.cameras[b]
            hops.setdefault(pair, []).append((tracks.starts[b] - tracks.ends[a]) / SECOND)
    return hops


def unlike(seconds: list[float], chance: list[float]) -> bool:
    if 4 * len(chance) <= len(seconds):
        return True
    apart = ks_2samp(seconds, chance).statistic
    return bool(apart > 1.63 * np.sqrt(1 / len(seconds) + 1 / len(chance)))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("lowest", [-1.0, 0.2])
def test_hops_are_those_of_a_literal_loop(
    seed: int, lowest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.retrieval.travel_times.BLOCK", 7)
    names, ids, times = random_crops(seed, 140, "abcd")
    people = np.random.default_rng(seed).standard_normal((9, 6))
    vectors = people[np.arange(140) % 9] + 0.4 * np.random.default_rng(seed + 1).standard_normal(
        (140, 6)
    )
    tracks = tracks_of(
        names, ids, times, vectors.astype(np.float32), horizon_seconds=1000, most=1000
    )
    found = learned(
        tracks, horizon_seconds=120, min_hops=5, lowest_score=lowest, score_quantile=0.5
    )
    hops = brute_force(tracks, 120, lowest)
    chance = brute_force(shuffled(tracks), 120, lowest)
    assert {(p.from_camera_id, p.to_camera_id): p.matches for p in found.pairs} == {
        pair: len(seconds) for pair, seconds in hops.items()
    }
    known = 0
    for pair in found.pairs:
        key = (pair.from_camera_id, pair.to_camera_id)
        seconds = np.array(hops[key])
        expected = len(seconds) >= 5 and unlike(hops[key], chance.get(key, []))
        assert (pair.time is not None) == expected
        if pair.time is not None:
            known += 1
            low, middle, high = (np.percentile(seconds, part) for part in (5, 50, 95))
            assert pair.time.min_seconds == pytest.approx(low - abs(low) / 2)
            assert pair.time.typical_seconds == pytest.approx(middle)
            assert pair.time.max_seconds == pytest.approx(high + abs(high) / 2)
    assert found.lowest_score == lowest
    assert len(found.pairs) == 12
    assert known < 12, "some are unknown"


def test_the_critical_value_is_that_of_the_test_at_one_percent() -> None:
    assert kstwobign.isf(0.01) == pytest.approx(1.63, abs=0.005)


def test_tracks_are_the_crops_of_one_track_of_one_camera() -> None:
    names, ids, times = random_crops(3, 60, "ab")
    vectors = np.random.default_rng(0).standard_normal((60, 4)).astype(np.float32)
    tracks = tracks_of(names, ids, times, vectors, **WHOLE)
    groups: dict[object, list[int]] = {}
    for n in range(60):
        groups.setdefault((names[n], ids[n]) if ids[n] else n, []).append(n)
    made = sorted(
        (times[rows].min(), times[rows].max(), names[rows[0]]) for rows in groups.values()
    )
    assert [tuple(row) for row in zip(tracks.starts, tracks.ends, tracks.cameras, strict=True)] == [
        (start, end, name) for start, end, name in made
    ]
    sums = np.stack([vectors[rows].sum(axis=0) for rows in groups.values()])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    np.testing.assert_allclose(np.sort(tracks.vectors[:, 0]), np.sort(sums[:, 0]), atol=1e-6)
    latest = tracks_of(names, ids, times, vectors, **(WHOLE | {"most": 10}))
    np.testing.assert_array_equal(latest.starts, tracks.starts[-10:])


def test_a_track_that_pauses_longer_than_the_horizon_is_another() -> None:
    """A tracker that begins to count anew gives tomorrow's people the names of today's."""
    times = np.array([0, 50, 30, 200, 290, 500]) * SECOND
    vectors = np.eye(6, dtype=np.float32)
    made = tracks_of(["a"] * 6, ["1"] * 6, times, vectors, horizon_seconds=100, most=10)
    spans = list(zip((made.starts // SECOND).tolist(), (made.ends // SECOND).tolist(), strict=True))
    assert spans == [(0, 50), (200, 290), (500, 500)]
    np.testing.assert_allclose(
        made.vectors[0], np.array([1, 1, 1, 0, 0, 0]) / np.sqrt(3), atol=1e-6
    )


def vectors_of(shots: list[Shot], noise: float) -> np.ndarray:
    """A direction of its own for everybody, and noise for every crop."""
    rng = np.random.default_rng(0)
    people = {}
    rows = []
    for shot in shots:
        who = (shot.crowd, shot.person) if shot.person >= 0 else ("nobody", shot.visit)
        if who not in people:
            people[who] = rng.standard_normal(64) / 8
        rows.append(people[who] + noise * rng.standard_normal(64))
    made = np.array(rows)
    return np.asarray(made / np.linalg.norm(made, axis=1, keepdims=True), np.float32)


def learned_from(shots: list[Shot], noise: float) -> list[LearnedPair]:
    tracks = tracks_of(
        [f"c{shot.camera}" for shot in shots],
        [shot.track for shot in shots],
        np.array([round((shot.capture_time - shots[0].capture_time).total_seconds() * SECOND)
                  for shot in shots]),
        vectors_of(shots, noise),
        horizon_seconds=3600,
        most=5000,
    )  # fmt: skip
    found = learned(
        tracks, horizon_seconds=3600, min_hops=20, lowest_score=None, score_quantile=0.5
    )
    return found.pairs


def true_hops(shots: list[Shot]) -> dict[tuple[str, str], list[float]]:
    """Seconds between a person's visits, from the schedule itself."""
    visits: dict[tuple[int, int], dict[int, list[Shot]]] = {}
    for shot in shots:
        if shot.person >= 0 and shot.crowd != BYSTANDERS:
            visits.setdefault((shot.crowd, shot.person), {}).setdefault(shot.visit, []).append(shot)
    hops: dict[tuple[str, str], list[float]] = {}
    for own in visits.values():
        ways = sorted(own.values(), key=lambda visit: min(shot.frame for shot in visit))
        for one, other in pairwise(ways):
            pair = f"c{one[0].camera}", f"c{other[0].camera}"
            seconds = min(s.capture_time for s in other) - max(s.capture_time for s in one)
            hops.setdefault(pair, []).append(seconds.total_seconds())
    return hops


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("noise", [0.2, 0.35])
def test_the_times_of_a_simulated_site_are_found(seed: int, noise: float) -> None:
    site = cameras(seed, 5)
    shots = schedule(SimulationSettings(identities=300, cameras=5, crops=9000, seed=seed), site)
    hops = true_hops(shots)
    known = [pair.time for pair in learned_from(shots, noise) if pair.time is not None]
    assert len(known) >= 15
    for time in known:
        truth = hops[time.from_camera_id, time.to_camera_id]
        assert time.min_seconds <= min(truth), "nobody who walked is called too fast"
        assert time.min_seconds > min(truth) / 8
        assert time.max_seconds >= np.quantile(truth, 0.95)
        assert 0.5 < time.typical_seconds / np.median(truth) < 2


def test_vectors_that_tell_nobody_apart_teach_nothing() -> None:
    site = cameras(3, 5)
    shots = schedule(SimulationSettings(identities=300, cameras=5, crops=9000, seed=3), site)
    pairs = learned_from(shots, 50.0)
    assert sum(pair.matches >= 20 for pair in pairs) >= 15, "there are matches"
    assert sum(pair.time is not None for pair in pairs) <= 1


def test_too_few_matches_are_told_and_teach_nothing() -> None:
    """Ten people walk from a to b, and back."""
    rng = np.random.default_rng(0)
    people = np.eye(30, dtype=np.float32)
    names, times, vectors = [], [], []
    for number in range(30):
        for camera, at in (("a", 0), ("b", 50)) if number < 10 else ((rng.choice(["a", "b"]), 0),):
            names.append(str(camera))
            times.append((1000 * number + at) * SECOND)
            vectors.append(people[number])
    tracks = tracks_of(
        names,
        [""] * len(names),
        np.array(times),
        np.array(vectors),
        horizon_seconds=1000,
        most=1000,
    )

    def ask(hops: int) -> list[LearnedPair]:
        return learned(
            tracks, horizon_seconds=500, min_hops=hops, lowest_score=0.9, score_quantile=0.5
        ).pairs

    (few,) = ask(11)
    assert (few.from_camera_id, few.to_camera_id, few.matches, few.time) == ("a", "b", 10, None)
    (enough,) = ask(10)
    assert enough.time is not None
    assert (enough.time.min_seconds, enough.time.typical_seconds, enough.time.max_seconds) == (
        25, 50, 75,
    )  # fmt: skip


def test_cameras_that_see_a_person_at_once_have_times_below_zero() -> None:
    names, times, tracks, vectors = [], [], [], []
    for number in range(25):
        for camera, at in (("a", 0), ("a", 20), ("b", 12), ("b", 30)):
            names.append(camera)
            tracks.append(f"{camera}{number}")
            times.append((100 * number + at) * SECOND)
            vectors.append(np.eye(25, dtype=np.float32)[number])
    made = tracks_of(
        names, tracks, np.array(times), np.array(vectors), horizon_seconds=1000, most=1000
    )
    (pair,) = learned(
        made, horizon_seconds=50, min_hops=20, lowest_score=0.9, score_quantile=0.5
    ).pairs
    assert pair.time is not None
    assert (pair.time.min_seconds, pair.time.typical_seconds, pair.time.max_seconds) == (
        -12,
        -8,
        -4,
    )


def test_nothing_teaches_nothing() -> None:
    empty = tracks_of(
        [], [], np.empty(0, np.int64), np.empty((0, 4), np.float32), horizon_seconds=1, most=10
    )
    found = learned(empty, horizon_seconds=9, min_hops=1, lowest_score=None, score_quantile=0.5)
    assert (found.pairs, found.lowest_score) == ([], 1.0)
    one = tracks_of(
        ["a"], [""], np.zeros(1, np.int64), np.ones((1, 4), np.float32), horizon_seconds=1, most=10
    )
    assert not learned(
        one, horizon_seconds=9, min_hops=1, lowest_score=None, score_quantile=0.5
    ).pairs


def test_all_pairs_of_cameras_are_ordered() -> None:
    names, ids, times = random_crops(1, 200, "abc")
    vectors = np.random.default_rng(1).standard_normal((200, 5)).astype(np.float32)
    tracks = tracks_of(names, ids, times, vectors, **WHOLE)
    found = learned(tracks, horizon_seconds=400, min_hops=1, lowest_score=-1, score_quantile=0.5)
    told = [(pair.from_camera_id, pair.to_camera_id) for pair in found.pairs]
    assert told == sorted(permutations("abc", 2))
