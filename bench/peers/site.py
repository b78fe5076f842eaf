"""The data of the comparison: people seen by a hundred cameras, queries, and the true answers.

Vectors are synthetic people (``bench/synthetic.py``, noise 0.6, decay 0.8: like a real encoder's),
queries are further crops of them. Row n has id n, a camera at random and is captured in second n.
The truth is brute force: float32 products find 4 k rows, float64 ranks them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.synthetic import people

__all__ = ["CAMERAS", "TOP_K", "Condition", "Site", "made_site"]

CAMERAS = 100
TOP_K = 10
TIGHT_SECONDS = 2000
# Scores this close to the k-th best count as it: float32 cannot tell them apart.
TIE = 1e-6


class Condition(NamedTuple):
    """What may match: cameras, or every one; seconds ``start <= second < end``."""

    cameras: tuple[int, ...] | None = None
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True)
class Site:
    """Files of one data set.

    Args:
        folder: Where they lie.
        rows: Rows.
        dimension: Values a vector.
    """

    folder: Path
    rows: int
    dimension: int

    @property
    def conditions(self) -> dict[str, Condition]:
        """The filters by name; each keeps the share that its name says, ``tight`` about 20 rows."""
        middle = self.rows // 2
        return {
            "none": Condition(),
            "camera 1 %": Condition(cameras=(3,)),
            "camera 10 %": Condition(cameras=tuple(range(10))),
            "time 1 %": Condition(start=middle, end=middle + self.rows // 100),
            "time 10 %": Condition(start=middle, end=middle + self.rows // 10),
            "tight": Condition(cameras=(3,), start=middle, end=middle + TIGHT_SECONDS),
        }

    @property
    def vectors(self) -> NDArray[np.float32]:
        """(rows, dimension), mapped: it is not in memory once the array is gone."""
        return np.load(self.folder / "vectors.npy", mmap_mode="r")

    @property
    def cameras(self) -> NDArray[np.int32]:
        """(rows,)."""
        return np.load(self.folder / "cameras.npy")

    @property
    def queries(self) -> NDArray[np.float32]:
        """(Q, dimension)."""
        return np.load(self.folder / "queries.npy")

    def passing(self, condition: Condition) -> NDArray[np.bool_]:
        """Which rows pass, bool (rows,)."""
        passes = np.ones(self.rows, dtype=bool)
        if condition.cameras is not None:
            passes &= np.isin(self.cameras, condition.cameras)
        passes[: condition.start or 0] = False
        if condition.end is not None:
            passes[condition.end :] = False
        return passes

    def judge(self, name: str, found: dict[int, list[int]]) -> dict[str, float]:
        """Recall of the answers, how many rows they had of those there are, and how many of them
        are there twice or not allowed by the condition.

        Args:
            name: Of the condition.
            found: Rows by the number of the query.
        """
        passes = self.passing(self.conditions[name])
        truth = np.load(self.folder / "truth.npz")[name]
        expected = min(TOP_K, int(passes.sum()))
        vectors, queries = self.vectors, self.queries
        right = returned = outside = 0
        for query, rows in found.items():
            allowed = [row for row in dict.fromkeys(rows) if 0 <= row < self.rows and passes[row]]
            returned += len(rows)
            outside += len(rows) - len(allowed)
            scores = vectors[allowed].astype(np.float64) @ queries[query].astype(np.float64)
            right += min(expected, int((scores >= truth[query] - TIE).sum()))
        count = max(1, len(found))
        return {
            "recall": right / (expected * count),
            "returned": returned / count,
            "there_are": expected,
            "outside_filter": outside / count,
        }


def made_site(folder: Path, rows: int, dimension: int, queries: int) -> Site:
    """The data set, written."""
    site = Site(folder, rows, dimension)
    rng = np.random.default_rng(1)
    features = people(rows + queries, dimension, noise=0.6, decay=0.8)
    np.save(folder / "vectors.npy", features[:rows])
    np.save(folder / "queries.npy", features[rows:])
    np.save(folder / "cameras.npy", rng.integers(0, CAMERAS, rows, dtype=np.int32))
    truth = {
        name: _lowest(features[:rows], site.passing(condition), features[rows:])
        for name, condition in site.conditions.items()
    }
    np.savez(folder / "truth.npz", **truth)  # type: ignore[arg-type]
    return site


def _lowest(
    vectors: NDArray[np.float32], passes: NDArray[np.bool_], queries: NDArray[np.float32]
) -> NDArray[np.float64]:
    """The float64 product of each query with its last right row, (Q,)."""
    rows = np.flatnonzero(passes)
    wanted = min(TOP_K, len(rows))
    best = np.full((len(queries), 0), 0.0, np.float32)
    kept = np.empty((len(queries), 0), np.int64)
    for start in range(0, len(rows), 65_536):
        block = rows[start : start + 65_536]
        products = np.hstack((best, queries @ vectors[block].T))
        numbers = np.hstack((kept, np.broadcast_to(block, (len(queries), len(block)))))
        place = np.argsort(-products, axis=1)[:, : 4 * TOP_K]
        best = np.take_along_axis(products, place, 1)
        kept = np.take_along_axis(numbers, place, 1)
    exact = np.einsum("qkd,qd->qk", vectors[kept].astype(np.float64), queries.astype(np.float64))
    return np.sort(exact, axis=1)[:, -wanted]
