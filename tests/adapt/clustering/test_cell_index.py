"""Rows and the cells that they look into, against comparing pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.clustering import cell_index as cell_index_module
from adapt.clustering.cell_index import CellIndex
from adapt.clustering.heaps import NOBODY, Heaps
from adapt.clustering.layout import Layout, Scope, Wanted

ROWS, CELLS, WIDTH = 400, 18, 9


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_index_module, "_SHARD", 90)
    monkeypatch.setattr(cell_index_module, "_QUERIES", 16)
    monkeypatch.setattr(cell_index_module, "_MEMBERS", 7)


@pytest.fixture(name="features")
def unit_rows() -> np.ndarray:
    features = np.random.default_rng(0).standard_normal((ROWS, 12))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


def literal(
    features: np.ndarray,
    centres: np.ndarray,
    cameras: np.ndarray,
    scope: Scope,
    among: np.ndarray,
    near: int,
) -> list[set[int]]:
    """For each row the best of the members of its nearest cells."""
    order = np.argsort(-(features @ centres.T), axis=1, kind="stable")
    best = []
    for i in range(len(features)):
        products = features.astype(np.float64) @ features[i].astype(np.float64)
        met = [
            (-products[j], j)
            for j in among
            if j != i
            and order[j, 0] in order[i, :near]
            and (scope == "all" or (cameras[i] == cameras[j]) == (scope == "same"))
        ]
        best.append({int(j) for _, j in sorted(met)[:WIDTH]})
    return best


def held(heap: Heaps, layout: Layout) -> dict[int, list[int]]:
    return {
        int(i): sorted(int(j) for j in heap.indices[p] if j != NOBODY)
        for p, i in enumerate(layout.order)
    }


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("scope", ["all", "same", "other"])
def test_each_row_meets_the_members_of_its_nearest_cells(
    scope: Scope, threads: int, features: np.ndarray
) -> None:
    cameras = np.random.default_rng(1).integers(0, 3, ROWS)
    centres = features[::22][:CELLS]
    layout = Layout.plain(ROWS) if scope == "all" else Layout.by_camera(cameras)
    want = Wanted(scope, WIDTH, WIDTH)
    part = layout.cameras[1] if scope == "same" else (0, ROWS)
    among = layout.order[part[0] : part[1]]
    index = CellIndex(features, layout, part, centres, threads=threads)
    assert (index.rows, index.cells) == (len(among), len(centres))
    heap = Heaps.empty(ROWS, WIDTH, np.float32)
    steps: list[tuple[int, int]] = []
    index.compare((0, 2), want, heap, progress=lambda *step: steps.append(step))
    assert [done for done, _ in steps] == list(range(1, steps[-1][1] + 1))
    for near in (2, 5):
        if near > 2:
            index.compare((2, near), want, heap)
        expected = literal(features, centres, cameras, scope, among, near)
        found = held(heap, layout)
        for i in range(ROWS):
            assert found[i] == (sorted(expected[i]) if i in among else [])


def test_looking_twice_adds_nobody_twice(features: np.ndarray) -> None:
    layout, want = Layout.plain(ROWS), Wanted("all", WIDTH, WIDTH)
    index = CellIndex(features, layout, (0, ROWS), features[:CELLS], threads=2)
    heap = Heaps.empty(ROWS, WIDTH, np.float32)
    index.compare((0, 4), want, heap)
    before = held(heap, layout)
    index.compare((0, 4), want, heap)
    assert held(heap, layout) == before
    assert all(len(set(row)) == len(row) for row in before.values())
