"""Neighbours of neighbours, against sets."""

from __future__ import annotations

import numpy as np
import pytest

from adapt.clustering import refinement as refinement_module
from adapt.clustering.heaps import NOBODY, Heaps
from adapt.clustering.layout import Layout, Wanted
from adapt.clustering.refinement import Links, refine

ROWS = 240


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement_module, "_BLOCK", 50)


@pytest.fixture(name="features")
def people() -> np.ndarray:
    rng = np.random.default_rng(0)
    features = rng.standard_normal((12, 10))[rng.integers(0, 12, ROWS)]
    features += 0.6 * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32)


def setting(kind: str) -> tuple[Layout, list[Wanted], np.ndarray]:
    cameras = np.random.default_rng(1).choice(4, ROWS, p=[0.5, 0.3, 0.15, 0.05])
    if kind == "all":
        return Layout.plain(ROWS), [Wanted("all", 8, 6)], np.zeros(ROWS)
    wanted = {"same": Wanted("same", 4, 3), "other": Wanted("other", 7, 5)}
    kinds = ["same", "other"] if kind == "both" else [kind]
    return Layout.by_camera(cameras), [wanted[name] for name in kinds], cameras


def in_scope(want: Wanted, cameras: np.ndarray, i: int, j: int) -> bool:
    return want.scope == "all" or (cameras[i] == cameras[j]) == (want.scope == "same")


def scattered(
    features: np.ndarray, layout: Layout, wanted: list[Wanted], cameras: np.ndarray
) -> list[Heaps]:
    """Heaps of some rows in scope, half of them empty at the end, as a heap wants them."""
    rng = np.random.default_rng(2)
    heaps = [Heaps.empty(ROWS, want.width, np.float32) for want in wanted]
    for want, heap in zip(wanted, heaps, strict=True):
        for p, i in enumerate(layout.order):
            pool = [j for j in range(ROWS) if j != i and in_scope(want, cameras, i, j)]
            some = rng.permutation(pool)[: rng.integers(0, want.width + 1)]
            scores = features[some] @ features[i]
            best = np.argsort(scores, kind="stable")  # worst first, behind those of nobody
            at = want.width - len(some)
            heap.indices[p, at:] = some[best]
            heap.scores[p, at:] = scores[best]
            heap.worst[p] = heap.scores[p, 0]
    return heaps


def contents(heaps: list[Heaps], layout: Layout) -> list[list[set[int]]]:
    """Per heap, per row."""
    by_row: list[list[set[int]]] = []
    for heap in heaps:
        rows = [set[int]() for _ in range(ROWS)]
        for p, i in enumerate(layout.order):
            listed = [int(j) for j in heap.indices[p] if j != NOBODY]
            rows[i] = set(listed)
            assert len(rows[i]) == len(listed)
        by_row.append(rows)
    return by_row


def literal_round(
    features: np.ndarray,
    wanted: list[Wanted],
    lists: list[list[set[int]]],
    cameras: np.ndarray,
) -> list[list[set[int]]]:
    """The best of what stands in the lists, and in the lists of those."""
    united = [set[int]().union(*(rows[i] for rows in lists)) for i in range(ROWS)]
    after = []
    for want, rows in zip(wanted, lists, strict=True):
        improved = []
        for i in range(ROWS):
            met = rows[i] | {j for via in united[i] for j in united[via]} - {i}
            met = {j for j in met if in_scope(want, cameras, i, j)}
            ranked = sorted(met, key=lambda j: (-float(features[i] @ features[j]), j))
            improved.append(set(ranked[: want.width]))
        after.append(improved)
    return after


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["all", "same", "other", "both"])
def test_rounds_follow_every_pair_of_links(kind: str, threads: int, features: np.ndarray) -> None:
    layout, wanted, cameras = setting(kind)
    heaps = scattered(features, layout, wanted, cameras)
    expected = contents(heaps, layout)
    links: Links | None = None
    rows = np.random.default_rng(3).permutation(ROWS).astype(np.int32)
    for step in range(4):
        links = Links.of(heaps, layout, links)
        refine(
            features, layout, wanted, heaps, links, threads=threads,
            rows=rows if step % 2 else None,
        )  # fmt: skip
        # The literal round follows every pair of links each time; only new ones need it.
        following = literal_round(features, wanted, expected, cameras)
        assert contents(heaps, layout) == following
        assert (following != expected) or step > 1
        expected = following
    for heap in heaps:
        assert (heap.worst == heap.scores.min(axis=1)).all()


def test_links_are_what_the_heaps_hold_with_what_is_new_first(features: np.ndarray) -> None:
    layout, wanted, cameras = setting("both")
    heaps = scattered(features, layout, wanted, cameras)
    first = Links.of(heaps, layout)
    before = contents(heaps, layout)
    refine(features, layout, wanted, heaps, first, threads=1)
    second = Links.of(heaps, layout, first)
    after = contents(heaps, layout)
    assert (first.fresh == first.filled).all()
    assert (second.fresh < second.filled).any()
    assert (second.fresh > 0).any()
    for p, i in enumerate(layout.order):
        old = before[0][i] | before[1][i]
        now = after[0][i] | after[1][i]
        assert set(layout.order[first.members[p, : first.filled[p]]]) == old
        assert set(layout.order[second.members[p, : second.fresh[p]]]) == now - old
        listed = layout.order[second.members[p, second.fresh[p] : second.filled[p]]]
        assert set(listed) == now & old


def test_what_is_complete_stays_as_it_is(features: np.ndarray) -> None:
    layout, wanted, _ = setting("all")
    width = wanted[0].width
    heap = Heaps.empty(ROWS, width, np.float32)
    products = features @ features.T
    np.fill_diagonal(products, -np.inf)
    best = np.argsort(-products, axis=1, kind="stable")[:, :width][:, ::-1]
    heap.indices[:] = best
    heap.scores[:] = np.take_along_axis(products, best, axis=1)
    heap.worst[:] = heap.scores[:, 0]
    before = [set(row) for row in heap.indices.tolist()]
    refine(features, layout, wanted, [heap], Links.of([heap], layout), threads=2)
    assert [set(row) for row in heap.indices.tolist()] == before
