"""Cross-agreement against Python sets of neighbours found by sorting all similarities."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from adapt.methods import agreement
from adapt.methods.agreement import cross_agreement


def unit(shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).normal(size=shape)
    norms: NDArray[np.float64] = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.asarray(values / norms, dtype=np.float32)


def nearest_others(vectors: NDArray[np.float32], row: int, k: int) -> set[int]:
    similar = vectors.astype(np.float64) @ vectors[row].astype(np.float64)
    order = [int(j) for j in np.argsort(-similar, kind="stable") if j != row]
    return set(order[:k])


def literal(
    vectors: NDArray[np.float32], parts: NDArray[np.float32], k: int
) -> NDArray[np.float64]:
    result = np.empty(parts.shape[:2])
    for row in range(parts.shape[0]):
        whole = nearest_others(vectors, row, k)
        for part in range(parts.shape[1]):
            own = nearest_others(parts[:, part], row, k)
            result[row, part] = len(whole & own) / len(whole | own)
    return result


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_sets(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, noise = unit((70, 8), 0), unit((70, 3, 8), 1)
    parts = vectors[:, None] + np.array([0.1, 0.5, 3.0], dtype=np.float32)[:, None] * noise
    parts /= np.linalg.norm(parts, axis=-1, keepdims=True)
    expected = literal(vectors, parts, k)
    found = cross_agreement(vectors, parts, k, threads=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    monkeypatch.setattr(agreement, "_BLOCK_BYTES", 11 * k * k)
    assert np.array_equal(cross_agreement(vectors, parts, k, threads=1), found)


def test_a_part_equal_to_the_whole_agrees_fully_and_an_unrelated_one_hardly() -> None:
    vectors = unit((200, 8), 0)
    found = cross_agreement(vectors, np.stack([vectors, unit((200, 8), 9)], axis=1), 10, threads=1)
    assert (found[:, 0] == 1).all()
    assert found[:, 1].mean() < 0.1


def test_fewer_crops_than_neighbours_agree_as_they_are_all_of_them() -> None:
    assert (cross_agreement(unit((6, 4), 0), unit((6, 2, 4), 1), 20, threads=1) == 1).all()


def test_parts_without_direction_are_compared_all_the_same() -> None:
    parts = unit((30, 1, 4), 1)
    parts[::3] = 0
    vectors = unit((30, 4), 0)
    found = cross_agreement(vectors, parts, 5, threads=1)
    np.testing.assert_allclose(found, literal(vectors, parts, 5), rtol=1e-6)
