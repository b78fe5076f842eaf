"""Pseudo-labels for a set of features: neighbours, Jaccard graph, DBSCAN."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads
from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import DistanceGraph
from adapt.clustering.jaccard import jaccard_graph
from adapt.clustering.neighbours import Neighbours, nearest
from adapt.clustering.reciprocal import Convention, neighbour_columns
from adapt.clustering.similarity import unit_rows
from resight.errors import InvalidArgument

__all__ = ["MAX_NEIGHBOURS", "ClusterResult", "ClusterSettings", "cluster", "compile_kernels"]

MAX_NEIGHBOURS = 1000


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """How crops are grouped.

    Attributes:
        k1: size of the k-reciprocal neighbourhood, 1 to 1000.
        k2: neighbours averaged in the local query expansion, 1 to k1.
        eps: DBSCAN radius as a Jaccard distance, 0 < eps < 1.
        min_samples: crops within ``eps``, itself included, that make a core.
        gap: the graph reaches to ``eps + gap``, so that ``ClusterResult.labels_at`` can cluster
            more loosely (SpCL's self-paced criterion) without a second search.
        convention: how ``k1`` counts, see :mod:`adapt.clustering.reciprocal`.
    """

    k1: int = 30
    k2: int = 6
    eps: float = 0.6
    min_samples: int = 4
    gap: float = 0.0
    convention: Convention = "released"

    def __post_init__(self) -> None:
        if not 1 <= self.k1 <= MAX_NEIGHBOURS:
            raise _outside("k1", self.k1, f"between 1 and {MAX_NEIGHBOURS}")
        if not 1 <= self.k2 <= self.k1:
            raise _outside("k2", self.k2, f"between 1 and k1 ({self.k1})")
        if not 0.0 < self.eps < 1.0:
            raise _outside("eps", self.eps, "between 0 and 1, both excluded: a Jaccard distance")
        if not (self.gap >= 0.0 and self.eps + self.gap < 1.0):
            raise _outside("gap", self.gap, f"from 0 to less than 1 - eps ({1.0 - self.eps:g})")
        if self.min_samples < 1:
            raise _outside("min_samples", self.min_samples, "at least 1")
        neighbour_columns(self.k1, self.convention)

    @property
    def columns(self) -> int:
        """Neighbours to search for, the crop itself included."""
        return neighbour_columns(self.k1, self.convention)


@dataclass(frozen=True)
class ClusterResult:
    """Pseudo-labels and what they were made from.

    Attributes:
        labels: int32 (N,), clusters from 0, -1 for outliers.
        graph: every pair within ``settings.eps + settings.gap``.
        neighbours: the exact neighbour lists.
        settings: as asked.
        seconds: wall time of ``compile`` (first call of a process only), ``neighbours``,
            ``jaccard``, ``dbscan`` and ``total`` (without ``compile``).
        notes: what a reader of the labels should know, such as fewer crops than k1.
    """

    labels: NDArray[np.int32]
    graph: DistanceGraph
    neighbours: Neighbours
    settings: ClusterSettings
    seconds: dict[str, float]
    notes: tuple[str, ...] = field(default=())

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return int(self.labels.max(initial=-1)) + 1

    @property
    def outliers(self) -> int:
        """Number of crops in no cluster."""
        return int(np.count_nonzero(self.labels < 0))

    @property
    def largest(self) -> int:
        """Crops of the largest cluster, 0 without clusters."""
        return int(np.bincount(self.labels[self.labels >= 0], minlength=1).max())

    def labels_at(self, eps: float) -> NDArray[np.int32]:
        """Labels at another radius, at most ``settings.eps + settings.gap``, from the same graph.

        Raises:
            InvalidArgument: ``eps`` beyond the graph.
        """
        return dbscan(self.graph, eps=eps, min_samples=self.settings.min_samples)


def cluster(
    features: NDArray[np.floating],
    settings: ClusterSettings | None = None,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    overwrite: bool = False,
) -> ClusterResult:
    """Group crops whose neighbourhoods overlap.

    Args:
        features: float (N, D), one row per crop; rows of another length than 1 are normalised
            (in a copy, unless ``overwrite``). N may be 0.
        settings: default ``ClusterSettings()``.
        threads: default every core this process may use.
        progress: called with (steps done, steps in all) during the neighbour search, which takes
            most of the time.
        overwrite: a float32 ``features`` may be normalised in place, sparing its size in memory.

    Raises:
        InvalidArgument: features not a finite two-dimensional matrix without all-zero rows.
    """
    settings = settings or ClusterSettings()
    threads = threads or available_threads()
    seconds = {"compile": compile_kernels()}
    started = time.perf_counter()
    unit = unit_rows(features, overwrite=overwrite)
    neighbours = nearest(unit, settings.columns, threads=threads, progress=progress)
    searched = time.perf_counter()
    graph = jaccard_graph(
        neighbours,
        features=unit,
        max_distance=settings.eps + settings.gap,
        k1=settings.k1,
        k2=settings.k2,
        convention=settings.convention,
        threads=threads,
    )
    measured = time.perf_counter()
    labels = dbscan(graph, eps=settings.eps, min_samples=settings.min_samples)
    ended = time.perf_counter()
    seconds |= {
        "neighbours": searched - started,
        "jaccard": measured - searched,
        "dbscan": ended - measured,
        "total": ended - started,
    }
    notes = _notes(unit.shape[0], settings)
    return ClusterResult(labels, graph, neighbours, settings, seconds, notes)


def compile_kernels() -> float:
    """Compile (or load from the cache) every kernel; seconds taken, 0 after the first call."""
    started = time.perf_counter()
    before = _compiled_once.cache_info().hits
    _compiled_once()
    return time.perf_counter() - started if _compiled_once.cache_info().hits == before else 0.0


@cache
def _compiled_once() -> None:
    # Sixteen distinct rows take the plain path, sixteen equal ones the float64 search.
    rows = np.concatenate([np.eye(16, dtype=np.float32), np.ones((16, 16), np.float32) / 4])
    for threads in (1, 2):
        neighbours = nearest(rows, 3, threads=threads)
        graph = jaccard_graph(
            neighbours, features=rows, max_distance=0.5, k1=3, k2=2, threads=threads
        )
        dbscan(graph, eps=0.5, min_samples=2)


def _notes(rows: int, settings: ClusterSettings) -> tuple[str, ...]:
    if rows < settings.columns:
        return (
            f"{rows} crops are fewer than k1 ({settings.k1}): every crop neighbours every other",
        )
    return ()


def _outside(name: str, value: float, bounds: str) -> InvalidArgument:
    return InvalidArgument(f"{name}: is {value}; it must be {bounds}", field=name)
