"""The neighbour search against brute force in float64 and against faiss."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from adapt.clustering import candidates as candidates_module
from adapt.clustering.neighbours import nearest
from adapt.clustering.similarity import unit_rows
from resight.errors import InvalidArgument


def brute_force(features: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    exact = features.astype(np.float64) @ features.astype(np.float64).T
    exact = np.rint(exact * 2.0**40) / 2.0**40
    ranked = exact.copy()
    np.fill_diagonal(ranked, np.inf)
    order = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(exact, order, axis=1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("k", [1, 2, 10, 60])
def test_equals_brute_force_across_blocks(
    k: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates_module, "_BLOCK", 100)  # rows 0..330 in four uneven blocks
    rows = unit_rows(np.random.default_rng(0).standard_normal((331, 20)).astype(np.float32))
    done: list[tuple[int, int]] = []
    found = nearest(rows, k, threads=threads, progress=lambda *step: done.append(step))
    indices, similarities = brute_force(rows, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarities, similarities, atol=2e-12)
    assert done == ([] if k == 1 else [(step, 10) for step in range(1, 11)])


def test_agrees_with_faiss_on_more_rows_than_a_block() -> None:
    rng = np.random.default_rng(1)
    rows = unit_rows(rng.standard_normal((5000, 32)).astype(np.float32))
    index = faiss.IndexFlatIP(32)
    index.add(rows)
    similarities, indices = index.search(rows, 30)
    found = nearest(rows, 30)
    assert (found.indices == indices).mean() > 0.999  # float32 swaps a few near-ties
    np.testing.assert_allclose(found.similarities, similarities, atol=1e-6)
    assert found.searched_twice < 50


@pytest.mark.parametrize("copies", [5, 37, 38, 39, 200])
def test_equal_rows_are_taken_by_index_after_the_row_itself(copies: int) -> None:
    base = unit_rows(np.random.default_rng(2).standard_normal((4, 16)).astype(np.float32))
    rows = base[np.random.default_rng(3).permutation(np.repeat(np.arange(4), copies))]
    found = nearest(rows, 30)
    np.testing.assert_array_equal(found.indices, brute_force(rows, 30)[0])


def test_rows_closer_than_float32_can_tell_are_searched_in_float64() -> None:
    rng = np.random.default_rng(4)
    rows = unit_rows((1 + 1e-5 * rng.standard_normal((600, 64))).astype(np.float32))
    found = nearest(rows, 20)
    assert found.searched_twice > 300
    np.testing.assert_array_equal(found.indices, brute_force(rows, 20)[0])


def test_fewer_rows_than_k_and_no_rows() -> None:
    rows = unit_rows(np.random.default_rng(5).standard_normal((7, 4)).astype(np.float32))
    np.testing.assert_array_equal(nearest(rows, 30).indices, brute_force(rows, 30)[0])
    assert nearest(rows[:1], 30).indices.tolist() == [[0]]
    assert nearest(rows[:0], 30).indices.shape == (0, 1)
    with pytest.raises(InvalidArgument, match="k: is 0"):
        nearest(rows, 0)
