"""The approximate search: what it finds, what it says of that, and when it steps aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapt.clustering import cell_search
from adapt.clustering.candidates import ExactSearch
from adapt.clustering.cell_search import CellSearch
from adapt.clustering.cells import cell_centres, default_cells, nearest_cells
from adapt.clustering.cluster import cluster
from adapt.clustering.heaps import Heaps
from adapt.clustering.layout import Layout, Wanted
from adapt.clustering.neighbours import nearest, nearest_by_camera
from adapt.clustering.settings import ClusterSettings
from resight.errors import InvalidArgument


@pytest.fixture(autouse=True)
def cells_at_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it fewer than 10,000 rows are compared all with all."""
    monkeypatch.setattr(cell_search, "_FEW_ROWS", 0)


def people(rows: int, count: int, noise: float, dimension: int = 48, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, dimension))[rng.integers(0, count, rows)]
    features += noise * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


def literal_recall(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the entries of ``exact`` that the same row of ``found`` holds; rows left out."""
    shares = []
    for i, (some, true) in enumerate(zip(found, exact, strict=True)):
        true = set(true[true >= 0]) - {i}
        shares.append((len(true & set(some)), len(true)))
    return sum(hit for hit, _ in shares) / sum(all_ for _, all_ in shares)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("asked", [0.8, 0.95])
def test_it_finds_what_was_asked_and_says_how_much(asked: float, threads: int) -> None:
    features = people(3000, 300, 0.8)
    search = CellSearch(recall=asked)
    found = nearest(features, 20, search=search, threads=threads)
    exact = nearest(features, 20)
    assert not search.exact
    assert 1 <= search.looked_into < default_cells(3000) / 2
    assert found.searched == "approximate"
    true = literal_recall(found.indices, exact.indices)
    assert asked - 0.03 < true < 1
    assert found.recall == pytest.approx(true, abs=0.02)
    assert (found.indices >= 0).all()
    assert (found.indices[:, 0] == np.arange(3000)).all()
    assert (np.diff(found.similarities[:, 1:], axis=1) <= 0).all()
    rows = np.repeat(np.arange(3000), 20)
    cosines = (features[rows].astype(np.float64) * features[found.indices.ravel()]).sum(axis=1)
    np.testing.assert_allclose(found.similarities.ravel(), cosines, atol=1e-11)
    again = nearest(features, 20, search=CellSearch(recall=asked), threads=threads)
    np.testing.assert_array_equal(again.indices, found.indices)


def test_cameras_are_kept_apart() -> None:
    features = people(3000, 150, 0.7)
    cameras = np.random.default_rng(1).choice([4, 7, 9], 3000, p=[0.6, 0.3, 0.1])
    steps: list[tuple[int, int]] = []
    found = nearest_by_camera(
        features, cameras, same=6, other=15, search=CellSearch(recall=0.95), threads=2,
        progress=lambda *step: steps.append(step),
    )  # fmt: skip
    assert steps == sorted(steps)
    assert steps[-1] == (6000, 6000)
    exact = nearest_by_camera(features, cameras, same=6, other=15)
    assert found.searched == "approximate"
    for lists, true in ((found.same, exact.same), (found.other, exact.other)):
        assert literal_recall(lists.indices, true.indices) > 0.92
        assert lists.recall == pytest.approx(literal_recall(lists.indices, true.indices), abs=0.02)
    assert (found.same.indices >= 0).all()
    assert (found.other.indices >= 0).all()
    assert (cameras[found.same.indices] == cameras[:, None]).all()
    assert (cameras[found.other.indices] != cameras[:, None]).all()
    assert found.recall == min(found.same.recall, found.other.recall)


def test_lists_that_the_cells_cannot_fill_are_completed() -> None:
    # Four crops a person and a cell or two for each: no list of twelve is full.
    rng = np.random.default_rng(0)
    features = np.repeat(people(150, 150, 0.1), 4, axis=0)
    features += 0.01 * rng.standard_normal(features.shape).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    search = CellSearch(recall=0.2, cells=150)
    found = nearest(features, 12, search=search)
    assert not search.exact
    assert search.looked_into == 1
    assert found.searched_twice > 400
    assert (found.indices >= 0).all()
    completed = (found.indices == nearest(features, 12).indices).all(axis=1)
    assert completed.sum() >= found.searched_twice


def test_few_rows_are_compared_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    features = people(3000, 300, 0.8)
    search = CellSearch(recall=0.5)
    assert nearest(features, 20, search=search).recall == 1.0
    assert search.exact


def test_a_small_camera_is_searched_whole() -> None:
    # Its few crops are spread over cells that other cameras' crops fill.
    features = people(3000, 150, 0.7)
    cameras = np.zeros(3000, dtype=np.int64)
    cameras[::60] = 1
    found = nearest_by_camera(features, cameras, same=6, other=15, search=CellSearch(recall=0.9))
    exact = nearest_by_camera(features, cameras, same=6, other=15)
    assert found.searched == "approximate"
    np.testing.assert_array_equal(found.same.indices[::60], exact.same.indices[::60])


def test_it_steps_aside_where_it_would_save_nothing(
    data_set: Callable[[str], np.ndarray],
) -> None:
    for name in ("random", "few", "one", "copies", "identical"):
        features = data_set(name)
        search = CellSearch(recall=1.0)
        found = nearest(features, 15, search=search)
        np.testing.assert_array_equal(found.indices, nearest(features, 15).indices)
    noise = people(600, 600, 1.0, dimension=400)
    search = CellSearch(recall=0.99)
    assert (nearest(noise, 30, search=search).recall, search.exact) == (1.0, True)
    assert search.name == "exact"
    with pytest.raises(InvalidArgument, match=r"recall: is 1\.5"):
        CellSearch(recall=1.5)


def test_memory_mapped_features_are_searched_alike(tmp_path: Path) -> None:
    features = people(1500, 100, 0.6)
    np.save(tmp_path / "F.npy", features)
    mapped = np.load(tmp_path / "F.npy", mmap_mode="r")
    for search in (CellSearch(recall=0.9), ExactSearch()):
        np.testing.assert_array_equal(
            nearest(mapped, 10, search=search).indices, nearest(features, 10, search=search).indices
        )


def test_the_nearest_cells_are_those_of_a_sort_and_empty_ones_are_refilled() -> None:
    features = people(800, 20, 0.5)
    rows = np.arange(1, 800, 2, dtype=np.int32)
    centres = cell_centres(features, rows, 30, seed=3, threads=2)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    expected = np.argsort(-(features[rows] @ centres.T), axis=1, kind="stable")
    for near in (1, 7, 30):
        found = nearest_cells(features, rows, centres, near, threads=2)
        np.testing.assert_array_equal(found, expected[:, :near])
    equal = np.full((50, 4), 0.5, dtype=np.float32)
    same = cell_centres(equal, np.arange(50, dtype=np.int32), 8, seed=0, threads=1)
    np.testing.assert_allclose(same, 0.5)


def test_settings_choose_the_search_and_the_result_says_so() -> None:
    features = people(2500, 120, 0.7)
    exact = cluster(features, ClusterSettings(eps=0.5))
    small = cluster(features, ClusterSettings(eps=0.5, neighbours="approximate"))
    above = cluster(features, ClusterSettings(eps=0.5, approximate_above=2499))
    within = cluster(features, ClusterSettings(eps=0.5, approximate_above=2500))
    forced = cluster(features, ClusterSettings(eps=0.5, approximate_above=10, neighbours="exact"))
    assert [r.neighbours.searched for r in (exact, small, above, within, forced)] == [
        "exact", "approximate", "approximate", "exact", "exact",
    ]  # fmt: skip
    assert small.figures == {"neighbour_recall": small.neighbours.recall}
    assert small.neighbours.recall > 0.97
    assert "of the exact ones, measured on 1,000 rows" in small.notes[0]
    assert exact.notes == within.notes == ()
    assert exact.clusters > 20
    together = np.equal.outer(exact.labels, exact.labels)
    assert (together == np.equal.outer(small.labels, small.labels)).mean() > 0.98
    for setting, value in (
        ("neighbours", "some"), ("approximate_above", -1), ("neighbour_recall", 0.0),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument, match=setting):
            ClusterSettings(**{setting: value})  # type: ignore[arg-type]


class Forgetful(ExactSearch):
    """Says that it is exact and overlooks every third row."""

    trusted = False
    name = "a forgetful search"

    def __call__(
        self, features: np.ndarray, layout: Layout, wanted: Sequence[Wanted], **how: Any
    ) -> list[Heaps]:
        heaps = super().__call__(features, layout, wanted, **how)
        for heap in heaps:
            heap.scores[heap.indices % 3 == 0] = -np.inf
            heap.indices[heap.indices % 3 == 0] = np.iinfo(np.int32).max
        return heaps


def test_a_search_that_is_not_as_exact_as_it_says_is_caught() -> None:
    features = people(1200, 60, 0.6)
    result = cluster(features, ClusterSettings(eps=0.5), search=Forgetful())
    honest = cluster(features, ClusterSettings(eps=0.5))
    np.testing.assert_array_equal(result.neighbours.indices, honest.neighbours.indices)  # type: ignore[union-attr]
    np.testing.assert_array_equal(result.labels, honest.labels)
    assert "a forgetful search found" in result.notes[0]
    assert "searched again on the CPU" in result.notes[0]


def test_an_exact_search_of_the_callers_is_preferred_to_an_approximate_one() -> None:
    class Named(ExactSearch):
        trusted = False
        name = "exact elsewhere"

    features = people(1200, 60, 0.6)
    result = cluster(features, ClusterSettings(approximate_above=10), search=Named())
    assert (result.neighbours.searched, result.neighbours.recall) == ("exact elsewhere", 1.0)
    assert result.notes == ()
    asked = ClusterSettings(neighbours="approximate")
    assert cluster(features, asked, search=Named()).neighbours.searched == "approximate"
