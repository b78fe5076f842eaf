"""Clustering under constraints against the rule written out on dense matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapt.clustering.cluster import cluster
from adapt.clustering.constrained import constrained_dbscan
from adapt.clustering.constraints import Constraints
from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import SparseDistances, UpperBlock, symmetric
from adapt.clustering.settings import ClusterSettings
from resight.errors import InvalidArgument


def graph_of(distances: np.ndarray, radius: float, cut: int) -> SparseDistances:
    blocks = []
    for start in range(0, len(distances), cut):
        rows = distances[start : start + cut]
        later = np.arange(len(distances)) > np.arange(start, start + len(rows))[:, None]
        row, column = np.nonzero((rows <= np.float32(radius)) & later)
        counts = np.bincount(row, minlength=len(rows))
        blocks.append(UpperBlock(start, counts, column.astype(np.int32), rows[row, column]))
    return symmetric(blocks, len(distances), radius)


def no_apart(cameras: int = 4) -> np.ndarray:
    return np.zeros((cameras, cameras), dtype=bool)


def constraints_of(
    tracks: Any, cameras: Any, times: Any, apart: np.ndarray | None = None, **how: Any
) -> Constraints:
    return Constraints(
        np.asarray(tracks, dtype=np.int32),
        np.asarray(cameras, dtype=np.int32),
        np.asarray(times, dtype=np.int64),
        no_apart() if apart is None else apart,
        **how,
    )


def literal_units(known: Constraints) -> list[list[int]]:
    """Crops of each unit, in the order of their first crop."""
    units: dict[Any, list[int]] = {}
    for i, track in enumerate(known.tracks):
        units.setdefault(("track", track) if track >= 0 else ("crop", i), []).append(i)
    return sorted(units.values())


def literal_conflict(known: Constraints, u: list[int], v: list[int]) -> bool:
    if u == v or not known.separate:
        return False
    times_u, times_v = known.times[u], known.times[v]
    a, b = known.cameras[u[0]], known.cameras[v[0]]
    if min(a, b) < 0 or min(times_u.min(), times_v.min()) < 0:
        return False
    between = max(times_u.min(), times_v.min()) - min(times_u.max(), times_v.max())
    if a == b:
        return bool(known.tracks[u[0]] >= 0 and known.tracks[v[0]] >= 0 and between <= 0)
    return bool(known.apart[a, b] and between <= known.apart_within)


def literal_labels(
    distances: np.ndarray, eps: float, min_samples: int, known: Constraints
) -> tuple[list[int], int, int]:
    """The rule of ``constrained``, step by step: labels, cut pairs, clusters split."""
    n = len(distances)
    units = literal_units(known)
    of = {i: u for u, crops in enumerate(units) for i in crops}
    bad = [[literal_conflict(known, u, v) for v in units] for u in units]
    within = distances <= np.float32(eps)
    cut = sum(bool(within[i, j] and bad[of[i]][of[j]]) for i in range(n) for j in range(i))
    close = [
        [i != j and of[i] != of[j] and within[i, j] and not bad[of[i]][of[j]] for j in range(n)]
        for i in range(n)
    ]
    core = [len(units[of[i]]) + sum(close[i]) >= min_samples for i in range(n)]
    core_units = {of[i] for i in range(n) if core[i]}
    edges = sorted(
        (float(distances[i, j]), i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if core[i] and core[j] and close[i][j]
    )

    def joined(heed: bool) -> list[set[int]]:
        parts = [{u} for u in sorted(core_units)]
        for _, i, j in edges:
            a = next(part for part in parts if of[i] in part)
            b = next(part for part in parts if of[j] in part)
            if a is not b and not (heed and any(bad[u][v] for u in a for v in b)):
                parts.remove(b)
                a |= b
        return parts

    split = sum(any(bad[u][v] for u in part for v in part) for part in joined(heed=False))
    parts = joined(heed=True)
    parts.sort(key=lambda part: min(i for i in range(n) if core[i] and of[i] in part))
    for u, crops in enumerate(units):
        if u in core_units:
            continue
        for part in parts:
            near = any(close[i][j] and core[j] and of[j] in part for i in crops for j in range(n))
            # Only the cores that were there count as near; those that joined count as conflicts.
            if near and not any(bad[u][v] for v in part):
                part.add(u)
                break
    labels = [next((c for c, part in enumerate(parts) if of[i] in part), -1) for i in range(n)]
    return labels, cut, split


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, Constraints]:
    n = draw(st.sampled_from([1, 2, 5, 9, 14, 20, 26]))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    distances = (rng.integers(0, 10, (n, n)) / 10).astype(np.float32)
    distances[rng.random((n, n)) > draw(st.floats(0.1, 0.9))] = 1
    distances = np.minimum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    cameras = rng.integers(0, draw(st.integers(1, 4)), n)
    tracks = rng.integers(0, draw(st.integers(1, 8)), n) + 100 * cameras
    tracks[rng.random(n) < draw(st.sampled_from([0.0, 0.3, 0.8]))] = -1
    times = rng.integers(0, draw(st.sampled_from([5, 20, 200])), n)
    # Tracks are short: their crops lie close to one another.
    times = np.where(tracks >= 0, (tracks * 37) % 13 + times % 6, times)
    unknown = draw(st.sampled_from([0.0, 0.1]))
    times[rng.random(n) < unknown] = -1
    lost = rng.random(n) < unknown
    lost |= np.isin(tracks, tracks[lost & (tracks >= 0)])
    cameras = np.where(lost, -1, cameras)
    apart = np.triu(rng.random((4, 4)) < draw(st.sampled_from([0.0, 0.5, 1.0])), 1)
    known = constraints_of(
        tracks, cameras, times, apart | apart.T,
        apart_within=draw(st.integers(0, 5)), separate=draw(st.booleans()),
    )  # fmt: skip
    return distances, known


@given(
    case=cases(),
    min_samples=st.integers(1, 6),
    eps=st.sampled_from([0.1, 0.4, 0.8]),
    cut=st.integers(1, 30),
)
@settings(max_examples=400, deadline=None)
def test_labels_are_those_of_the_rule_and_break_no_constraint(
    case: tuple[np.ndarray, Constraints], min_samples: int, eps: float, cut: int
) -> None:
    distances, known = case
    graph = graph_of(distances, 0.9, cut)
    found = constrained_dbscan(graph, eps=eps, min_samples=min_samples, constraints=known)
    labels, pairs, split = literal_labels(distances, eps, min_samples, known)
    assert found.labels.tolist() == labels
    assert (found.cut, found.split) == (pairs, split)
    units = literal_units(known)
    assert found.tracks == sum(len(unit) > 1 for unit in units)
    for crops in units:
        assert len(set(found.labels[crops])) == 1
    for u in units:
        for v in units:
            if literal_conflict(known, u, v):
                assert found.labels[u[0]] != found.labels[v[0]] or found.labels[u[0]] == -1


@given(
    rows=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    min_samples=st.integers(1, 6),
    eps=st.sampled_from([0.1, 0.5, 0.9]),
)
@settings(max_examples=100, deadline=None)
def test_without_tracks_and_conflicts_labels_are_those_of_dbscan(
    rows: int, seed: int, min_samples: int, eps: float
) -> None:
    rng = np.random.default_rng(seed)
    distances = (rng.integers(0, 10, (rows, rows)) / 10).astype(np.float32)
    distances[rng.random((rows, rows)) > 0.3] = 1
    distances = np.minimum(distances, distances.T)
    np.fill_diagonal(distances, 0)
    graph = graph_of(distances, 0.9, 16)
    nothing = np.full(rows, -1)
    for cameras, times in ((nothing, nothing), (np.arange(rows) % 4, np.arange(rows) % 3)):
        found = constrained_dbscan(
            graph, eps=eps, min_samples=min_samples,
            constraints=constraints_of(nothing, cameras, times),
        )  # fmt: skip
        np.testing.assert_array_equal(found.labels, dbscan(graph, eps=eps, min_samples=min_samples))
        assert (found.tracks, found.cut, found.split, found.turned_away) == (0, 0, 0, 0)


def two_people(bridge: float) -> np.ndarray:
    """Five crops of each of two people, and a bridge between crops 4 and 5."""
    distances = np.ones((10, 10), dtype=np.float32)
    distances[:5, :5] = distances[5:, 5:] = 0.1
    distances[4, 5] = distances[5, 4] = bridge
    np.fill_diagonal(distances, 0)
    return distances


def test_a_bridge_between_two_tracks_seen_at_once_does_not_join_them() -> None:
    graph = graph_of(two_people(0.2), 0.9, 10)
    assert set(dbscan(graph, eps=0.5, min_samples=4)) == {0}
    # Crops 0 and 9 are of tracks of one camera that overlap in time; the bridge is not of them.
    tracks = [0, 0, -1, -1, -1, -1, -1, -1, 1, 1]
    times = [0, 10, 50, 60, 70, 80, 90, 95, 5, 15]
    known = constraints_of(tracks, [0] * 10, times)
    found = constrained_dbscan(graph, eps=0.5, min_samples=4, constraints=known)
    assert found.labels.tolist() == [0] * 5 + [1] * 5
    assert found.figures == {
        "tracks": 2.0, "cannot_links_cut": 0.0, "clusters_split": 1.0, "turned_away": 0.0,
    }  # fmt: skip
    one_after_the_other = constraints_of(tracks, [0] * 10, [*times[:8], 11, 15])
    found = constrained_dbscan(graph, eps=0.5, min_samples=4, constraints=one_after_the_other)
    assert set(found.labels) == {0}


def test_a_track_joins_what_its_looks_part_and_carries_lone_crops_along() -> None:
    distances = two_people(1.0)
    graph = graph_of(distances, 0.9, 10)
    assert dbscan(graph, eps=0.5, min_samples=4).tolist() == [0] * 5 + [1] * 5
    tracks = np.full(10, -1)
    tracks[[0, 9]] = 7
    found = constrained_dbscan(
        graph, eps=0.5, min_samples=4, constraints=constraints_of(tracks, [0] * 10, [-1] * 10)
    )
    assert set(found.labels) == {0}
    # A track of four crops that are near nobody is a cluster; of three, it is none.
    far = np.ones((7, 7), dtype=np.float32)
    np.fill_diagonal(far, 0)
    known = constraints_of([0, 0, 0, 0, 1, 1, 1], [0] * 7, [-1] * 7)
    found = constrained_dbscan(graph_of(far, 0.9, 7), eps=0.5, min_samples=4, constraints=known)
    assert found.labels.tolist() == [0, 0, 0, 0, -1, -1, -1]


def test_two_places_at_once_need_the_time_that_lies_between() -> None:
    graph = graph_of(two_people(0.2), 0.9, 10)
    apart = no_apart()
    apart[0, 1] = apart[1, 0] = True
    cameras = [0] * 5 + [1] * 5
    times = np.r_[np.arange(5), 14 + np.arange(5)]  # ten units between the last and the first

    def clusters(within: int, **how: Any) -> int:
        known = constraints_of([-1] * 10, cameras, times, apart, apart_within=within, **how)
        found = constrained_dbscan(graph, eps=0.5, min_samples=4, constraints=known)
        return len(set(found.labels))

    assert [clusters(9), clusters(10)] == [1, 2]
    assert clusters(10, separate=False) == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"cameras": [0]}, "give one for each of the 3 crops"),
        ({"times": [0]}, "give one for each of the 3 crops"),
        ({"cameras": [0, 0, 4]}, "there are 5 cameras"),
        ({"apart": np.zeros((4, 3), bool)}, "there are 4 cameras"),
        ({"apart": np.eye(4, dtype=bool)}, "no camera lies apart from itself"),
        ({"apart": np.eye(4, k=1, dtype=bool)}, "must be symmetric"),
        ({"cameras": [0, 1, 0]}, "track 5 has crops of several cameras"),
    ],
)
def test_constraints_that_cannot_be_are_refused(fault: dict[str, Any], message: str) -> None:
    given = {"tracks": [5, 5, -1], "cameras": [0, 0, 1], "times": [1, 2, 3], **fault}
    with pytest.raises(InvalidArgument, match=message):
        constraints_of(**given)


def test_settings_that_cannot_work_are_refused() -> None:
    known = constraints_of([-1] * 10, [0] * 10, [0] * 10)
    graph = graph_of(two_people(1.0), 0.5, 10)
    for eps, min_samples in ((0.6, 4), (0.5, 0)):
        with pytest.raises(InvalidArgument):
            constrained_dbscan(graph, eps=eps, min_samples=min_samples, constraints=known)


def test_the_whole_clustering_keeps_to_constraints_at_every_radius() -> None:
    # Persons 0 and 1, 2 and 3, ... look alike and are seen at once, at each of four cameras.
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(30), 12)
    centres = rng.standard_normal((15, 16))[np.arange(30) // 2]
    centres += 0.4 * rng.standard_normal(centres.shape)
    features = centres[people] + 0.9 * rng.standard_normal((360, 16))
    tracks = np.arange(360) // 3
    cameras = tracks % 4
    times = 1000 * (people // 2) + 10 * cameras + np.tile([0, 5, 9], 120)
    known = constraints_of(tracks, cameras, times)
    units = literal_units(known)
    at_once = [
        (u[0], v[0]) for u in units for v in units if u < v and literal_conflict(known, u, v)
    ]
    assert len(at_once) == 60

    def broken(labels: np.ndarray) -> tuple[int, int]:
        parted = sum(len(set(labels[unit])) > 1 for unit in units)
        return parted, sum(labels[i] == labels[j] >= 0 for i, j in at_once)

    for eps in (0.6, "auto"):
        settings = ClusterSettings(k1=15, k2=4, eps=eps, gap=0.1)  # type: ignore[arg-type]
        plain = cluster(features, settings)
        assert min(broken(plain.labels)) > 5
        result = cluster(features, settings, constraints=known)
        for radius in (result.eps - 0.1, result.eps, result.eps + 0.1):
            assert broken(result.labels_at(radius)) == (0, 0)
        np.testing.assert_array_equal(result.labels, result.labels_at(result.eps))
        assert result.constrained is not None
        assert result.figures["tracks"] == 120
        assert result.figures["cannot_links_cut"] == result.constrained.cut > 0
        assert result.figures["clusters_split"] > 0
    with pytest.raises(InvalidArgument, match="are of 360 crops; there are 350"):
        cluster(features[:350], constraints=known)
