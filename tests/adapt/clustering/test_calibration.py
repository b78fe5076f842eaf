"""What a search would find and has found, against counting."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.clustering import calibration as calibration_module
from adapt.clustering.calibration import Calibration
from adapt.clustering.heaps import Heaps
from adapt.clustering.layout import Layout, Scope, Wanted

ROWS = 500


def people(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((25, 16))[rng.integers(0, 25, rows)]
    features += 0.7 * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


def literal(features: np.ndarray, cameras: np.ndarray, scope: Scope, i: int, k: int) -> list[int]:
    """The k nearest rows of row i in scope, by sorting all of them."""
    within = {
        "all": np.full(len(features), True),
        "same": cameras == cameras[i],
        "other": cameras != cameras[i],
    }[scope]
    within[i] = False
    ids = np.flatnonzero(within)
    products = features[ids].astype(np.float64) @ features[i].astype(np.float64)
    return [int(j) for j in ids[np.argsort(-products, kind="stable")[:k]]]


@pytest.mark.parametrize("scope", ["all", "same", "other"])
def test_the_neighbours_are_those_of_a_sort_in_scope(
    scope: Scope, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_module, "_ROWS", 60)
    features = people()
    cameras = np.random.default_rng(1).choice([2, 5], ROWS, p=[0.98, 0.02])
    layout = Layout.plain(ROWS) if scope == "all" else Layout.by_camera(cameras)
    part = layout.cameras[0] if scope == "same" else (0, ROWS)
    found = Calibration.of(features, layout, part, Wanted(scope, 20, 12), seed=3)
    assert found.rows.size == np.unique(found.rows).size == 60
    np.testing.assert_array_equal(layout.order[found.positions], found.rows)
    assert ((part[0] <= found.positions) & (found.positions < part[1])).all()
    for i, listed in zip(found.rows, found.neighbours, strict=True):
        assert listed[listed >= 0].tolist() == literal(features, cameras, scope, int(i), 12)
        assert listed.size == 12


def test_the_cells_are_the_fewest_that_hold_the_share() -> None:
    features = people()
    found = Calibration.of(features, Layout.plain(ROWS), (0, ROWS), Wanted("all", 20, 12), seed=0)
    rng = np.random.default_rng(2)
    centres = features[rng.permutation(ROWS)[:40]]
    home = np.argmax(features @ centres.T, axis=1)
    near = np.argsort(-(features @ centres.T), axis=1, kind="stable")

    def share(cells: int) -> float:
        met = [
            home[j] in near[i, :cells]
            for i, listed in zip(found.rows, found.neighbours, strict=True)
            for j in listed
        ]
        return float(np.mean(met))

    asked = (0.3, 0.8, 0.97, 1.0)
    cells = found.cells_for(asked, features, centres, threads=2)
    assert cells == sorted(cells)
    for recall, count in zip(asked, cells, strict=True):
        assert share(count) >= recall
        assert count == 1 or share(count - 1) < recall


def test_recall_counts_what_the_heaps_hold() -> None:
    features = people()
    layout = Layout.by_camera(np.random.default_rng(4).integers(0, 3, ROWS))
    found = Calibration.of(features, layout, (0, ROWS), Wanted("other", 14, 12), seed=0)
    heap = Heaps.empty(ROWS, 14, np.float32)
    assert found.recall(heap) == 0.0
    rng = np.random.default_rng(5)
    hits = 0
    for position, listed in zip(found.positions, found.neighbours, strict=True):
        kept = listed[rng.random(listed.size) < 0.7]
        hits += kept.size
        heap.indices[position, 14 - kept.size :] = kept
    assert found.recall(heap) == hits / found.neighbours.size


def test_where_nobody_is_in_scope_nothing_is_missed() -> None:
    features = people(30)
    layout = Layout.by_camera(np.zeros(30, dtype=np.int64))
    found = Calibration.of(features, layout, (0, 30), Wanted("other", 4, 4), seed=0)
    assert (found.neighbours == -1).all()
    assert found.recall(Heaps.empty(30, 4, np.float32)) == 1.0
    assert found.cells_for((0.5, 1.0), features, features[:5], threads=1) == [1, 1]
