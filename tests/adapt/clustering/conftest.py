"""Data sets and a literal dense reference for the clustering tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


def _unit(rows: NDArray[np.floating]) -> Matrix:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def _clustered(n: int, dimension: int, noise: float, seed: int) -> Matrix:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n // 15), dimension))
    picked = centres[rng.integers(0, len(centres), n)]
    return _unit(picked + noise * rng.standard_normal((n, dimension)))


@pytest.fixture(scope="session")
def data_set() -> Callable[[str], Matrix]:
    """Unit rows by name: what the names promise is in the function's body."""

    def make(name: str) -> Matrix:
        rng = np.random.default_rng(len(name))
        if name == "random":
            return _unit(rng.standard_normal((250, 24)))
        if name == "clustered":
            return _clustered(300, 64, 0.9, seed=1)
        if name == "loose":
            return _clustered(250, 16, 0.8, seed=2)
        if name == "large":
            return _clustered(2000, 128, 1.1, seed=3)
        if name == "duplicates":  # groups of 1 to 12 equal rows among loosely grouped ones
            base = _clustered(50, 32, 0.8, seed=4)
            return base[rng.permutation(np.repeat(np.arange(50), 1 + np.arange(50) % 12))]
        if name == "copies":  # more copies of a row than k1
            base = _clustered(6, 32, 1.0, seed=5)
            return base[np.repeat(np.arange(6), [70, 3, 50, 1, 45, 2])]
        if name == "near-copies":  # closer than float32 products can tell apart
            base = _clustered(4, 32, 1.0, seed=6)[np.repeat(np.arange(4), 60)]
            return _unit(base + 1e-6 * rng.standard_normal(base.shape))
        if name == "few":
            return _clustered(9, 16, 0.5, seed=7)
        if name == "identical":
            return _unit(np.ones((50, 8)))
        if name == "one":
            return _unit(np.ones((1, 8)))
        if name == "none":
            return np.empty((0, 8), dtype=np.float32)
        raise KeyError(name)

    return make


class DenseReference:
    """The published procedure on dense matrices, written out step by step in numpy."""

    @staticmethod
    def similarities(features: Matrix) -> NDArray[np.float64]:
        exact = features.astype(np.float64) @ features.astype(np.float64).T
        return np.rint(exact * 2.0**40) / 2.0**40

    @classmethod
    def ranking(cls, features: Matrix, columns: int) -> NDArray[np.int64]:
        """Self first, then similarity descending, then index ascending."""
        similarity = cls.similarities(features)
        order = np.empty((len(features), min(columns, len(features))), dtype=np.int64)
        for i in range(len(features)):
            key = similarity[i].copy()
            key[i] = np.inf
            order[i] = np.argsort(-key, kind="stable")[:columns]
        return order

    @classmethod
    def encodings(cls, features: Matrix, k1: int, k2: int, convention: str) -> NDArray[np.float64]:
        n = len(features)
        similarity = cls.similarities(features)
        rank = cls.ranking(features, k1 + 1 if convention == "zhong" else k1)

        def mutual(i: int, k: int) -> NDArray[np.int64]:
            forward = rank[i, : k + 1]
            backward = rank[forward, : k + 1]
            return forward[np.where(backward == i)[0]]

        full = [mutual(i, k1) for i in range(n)]
        half = [mutual(i, int(np.around(k1 / 2))) for i in range(n)]
        v = np.zeros((n, n))
        for i in range(n):
            expanded = full[i]
            for candidate in full[i]:
                overlap = np.intersect1d(half[candidate], full[i])
                if len(overlap) > 2 / 3 * len(half[candidate]):
                    expanded = np.append(expanded, half[candidate])
            expanded = np.unique(expanded)
            weights = np.exp(-(2 - 2 * similarity[i, expanded]))
            v[i, expanded] = weights / weights.sum()
        if k2 > 1:
            v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(n)]) if n else v
        return v

    @classmethod
    def distances(cls, v: NDArray[np.float64]) -> NDArray[np.float32]:
        j = np.zeros((len(v), len(v)))
        for i in range(len(v)):
            held = np.flatnonzero(v[i])  # the minimum is 0 elsewhere
            s = np.minimum(v[i, held], v[:, held]).sum(axis=1)
            j[i] = 1 - s / (2 - s)
        j[j < 0] = 0
        np.fill_diagonal(j, 0)
        return j.astype(np.float32)


@pytest.fixture(scope="session")
def dense() -> type[DenseReference]:
    """The dense reference."""
    return DenseReference
