"""Pseudo-labels for a set of features: neighbours, Jaccard graph, DBSCAN."""

from __future__ import annotations

import time
from functools import cache

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads
from adapt.clustering.camera_aware import camera_columns
from adapt.clustering.candidates import Progress, Search
from adapt.clustering.cell_search import CellSearch
from adapt.clustering.constrained import constrained_dbscan, labels_of
from adapt.clustering.constraints import Constraints
from adapt.clustering.dbscan import dbscan
from adapt.clustering.graph import DistanceGraph, SparseDistances
from adapt.clustering.jaccard import camera_jaccard_rows, close_pairs, jaccard_graph, jaccard_rows
from adapt.clustering.layout import Layout, Wanted
from adapt.clustering.neighbours import CameraNeighbours, Neighbours, nearest, nearest_by_camera
from adapt.clustering.radius import choose_radius
from adapt.clustering.recall import MEASURED_ROWS
from adapt.clustering.refinement import Links, refine
from adapt.clustering.result import ClusterResult
from adapt.clustering.settings import ClusterSettings
from adapt.clustering.similarity import unit_rows
from adapt.clustering.sparse_rows import SparseRows
from resight.errors import InvalidArgument

__all__ = ["ClusterResult", "ClusterSettings", "cluster", "compile_kernels"]


def cluster(
    features: NDArray[np.floating],
    settings: ClusterSettings | None = None,
    *,
    cameras: NDArray[np.integer] | None = None,
    constraints: Constraints | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    search: Search | None = None,
) -> ClusterResult:
    """Group crops whose neighbourhoods overlap.

    Args:
        features: float (N, D), one row per crop; rows of another length than 1 are normalised
            (in a copy, unless ``overwrite``). N may be 0.
        settings: default ``ClusterSettings()``.
        cameras: integer (N,), the camera of each crop; ``ca-jaccard`` needs it, ``jaccard`` does
            not look at it.
        constraints: what tracks, cameras and times say of the crops: labels keep to it.
        threads: default every core this process may use.
        progress: called with (steps done, steps in all) during the neighbour search, which takes
            most of the time.
        search: an exact search of the caller's, on a GPU say, in place of the CPU's; it is held
            against brute force on some rows.
        overwrite: a float32 ``features`` may be normalised in place, sparing its size in memory.

    Raises:
        InvalidArgument: features not a finite two-dimensional matrix without all-zero rows;
            ``ca-jaccard`` without a camera for each crop; constraints of other crops.
    """
    settings = settings or ClusterSettings()
    threads = threads or available_threads()
    seconds = {"compile": compile_kernels()}
    started = time.perf_counter()
    unit = unit_rows(features, overwrite=overwrite)
    if constraints is not None and len(constraints) != unit.shape[0]:
        raise InvalidArgument(
            f"constraints: are of {len(constraints)} crops; there are {unit.shape[0]} features",
            field="constraints",
        )
    neighbours = _neighbours(
        unit, settings, cameras, threads, progress, _chosen(unit.shape[0], settings, search)
    )
    searched = time.perf_counter()
    encoded = _encode(unit, neighbours, settings, threads)
    entries = encoded.indices.size
    graph = close_pairs(encoded, max_distance=settings.reach, threads=threads)
    measured = time.perf_counter()
    radius, eps = None, settings.largest_eps
    if settings.eps == "auto":
        radius = choose_radius(
            graph,
            lambda pairs, at: labels_of(
                pairs, eps=at, min_samples=settings.min_samples, constraints=constraints
            ),
            threads=threads,
        )
        eps = radius.eps
        graph = _reaching(graph, encoded, eps + settings.gap, threads)
    del encoded
    chosen = time.perf_counter()
    labels = None if radius is None else radius.labels
    constrained = None
    if constraints is not None:
        constrained = constrained_dbscan(
            graph, eps=eps, min_samples=settings.min_samples, constraints=constraints
        )
        labels = constrained.labels
    elif labels is None:
        labels = dbscan(graph, eps=eps, min_samples=settings.min_samples)
    ended = time.perf_counter()
    seconds |= {
        "neighbours": searched - started,
        "jaccard": measured - searched,
        **({} if radius is None else {"radius": chosen - measured}),
        "dbscan": ended - chosen,
        "total": ended - started,
    }
    notes = (*_search_notes(neighbours), *_notes(unit.shape[0], settings, neighbours))
    if radius is not None and radius.caution:
        notes = (*notes, radius.caution)
    return ClusterResult(
        labels=labels,
        eps=eps,
        graph=graph,
        neighbours=neighbours,
        settings=settings,
        entries=entries,
        seconds=seconds,
        radius=radius,
        constraints=constraints,
        constrained=constrained,
        notes=notes,
    )


def _reaching(
    graph: DistanceGraph, encoded: SparseRows, max_distance: float, threads: int
) -> DistanceGraph:
    """The graph up to ``max_distance`` only: held, where a wider one was too large to be."""
    if isinstance(graph, SparseDistances):
        return graph.within(max_distance)
    return close_pairs(encoded, max_distance=max_distance, threads=threads)


def _chosen(rows: int, settings: ClusterSettings, given: Search | None) -> Search | None:
    wanted = settings.neighbours
    large = given is None and rows > settings.approximate_above
    if wanted == "approximate" or (wanted == "auto" and large):
        return CellSearch(recall=settings.neighbour_recall)
    return given


def _neighbours(
    unit: NDArray[np.float32],
    settings: ClusterSettings,
    cameras: NDArray[np.integer] | None,
    threads: int,
    progress: Progress | None,
    search: Search | None,
) -> Neighbours | CameraNeighbours:
    if settings.distance == "jaccard":
        return nearest(unit, settings.columns, threads=threads, progress=progress, search=search)
    if cameras is None:
        raise InvalidArgument(
            "distance: ca-jaccard needs the camera of every crop; give cameras or use jaccard",
            field="distance",
        )
    same, other = camera_columns(settings.k1_intra, settings.k1_inter, settings.convention)
    return nearest_by_camera(
        unit, cameras, same=same, other=other, threads=threads, progress=progress, search=search
    )


def _encode(
    unit: NDArray[np.float32],
    neighbours: Neighbours | CameraNeighbours,
    settings: ClusterSettings,
    threads: int,
) -> SparseRows:
    if isinstance(neighbours, CameraNeighbours):
        return camera_jaccard_rows(
            neighbours,
            k1_intra=settings.k1_intra,
            k1_inter=settings.k1_inter,
            k2_intra=settings.k2_intra,
            k2_inter=settings.k2_inter,
            convention=settings.convention,
            threads=threads,
        )
    return jaccard_rows(
        neighbours,
        features=unit,
        k1=settings.k1,
        k2=settings.k2,
        convention=settings.convention,
        threads=threads,
    )


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
        cameras = np.arange(32) % 2
        camera_jaccard_rows(
            nearest_by_camera(rows, cameras, same=3, other=3, threads=threads), threads=threads
        )
    plain, wanted = Layout.plain(32), [Wanted("all", 4, 3)]
    lists = CellSearch(recall=0.01, cells=4)(rows, plain, wanted, threads=1)
    refine(rows, plain, wanted, lists, Links.of(lists, plain), threads=1)


def _search_notes(neighbours: Neighbours | CameraNeighbours) -> tuple[str, ...]:
    if neighbours.note:
        return (neighbours.note,)
    if neighbours.searched != "approximate":
        return ()
    return (
        f"approximate neighbours: {neighbours.recall:.2%} of the exact ones, measured on"
        f" {min(MEASURED_ROWS, len(neighbours)):,} rows",
    )


def _notes(
    rows: int, settings: ClusterSettings, neighbours: Neighbours | CameraNeighbours
) -> tuple[str, ...]:
    if isinstance(neighbours, CameraNeighbours):
        if rows and not neighbours.other.indices.shape[1]:
            return ("ca-jaccard with a single camera: only crops of that camera are compared",)
        asked = camera_columns(settings.k1_intra, settings.k1_inter, settings.convention)[0]
        found = np.count_nonzero(neighbours.same.indices >= 0, axis=1)
        short = int(np.count_nonzero(found < asked))
        if not short:
            return ()
        return (
            f"{short} crops are of cameras with no more crops than k1_intra "
            f"({settings.k1_intra}): those neighbour every other of their camera",
        )
    if rows < settings.columns:
        return (
            f"{rows} crops are fewer than k1 ({settings.k1}): every crop neighbours every other",
        )
    return ()
