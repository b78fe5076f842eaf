"""Nearest neighbours by cosine similarity, ordered in float64.

A search (:mod:`adapt.clustering.candidates`) hands over a few candidates more than asked for. Their
similarities are computed anew in float64 (:mod:`adapt.clustering.similarity`), and the list of an
exact search is proven when the last neighbour lies further above the worst candidate than float32
products can err. Rows where it does not (many near-equal crops) are searched again in float64.

Order: the row itself first (where it belongs to the list), then by similarity, largest first, then
by index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads, map_blocks, row_blocks
from adapt.clustering.candidates import ExactSearch, Progress, Search
from adapt.clustering.exact_rows import exact_lists
from adapt.clustering.heaps import Heaps
from adapt.clustering.layout import Layout, Scope, Wanted
from adapt.clustering.ranking import rank
from adapt.clustering.recall import measured_recall
from adapt.clustering.similarity import SNAP, product_error
from resight.errors import InvalidArgument

__all__ = ["CameraNeighbours", "Neighbours", "nearest", "nearest_by_camera"]

_SPARE = 8
_RETRY_ROWS = 256


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of every row.

    Attributes:
        indices: int32 (N, k); column 0 is the row itself, unless the list is of other cameras;
            -1 pads the lists of rows that have fewer in scope.
        similarities: float64 (N, k), not increasing after column 0; 0 beside -1.
        searched_twice: rows whose candidates were too close together for float32, or, if the search
            was not exact, too few: brute force in float64 completes them.
        recall: share of the exact neighbours that is in the lists: 1 for an exact search, else
            measured by brute force on 1,000 random rows.
        searched: name of the search.
        note: what a reader should know of the search; "" where there is nothing to say.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float64]
    searched_twice: int = 0
    recall: float = 1.0
    searched: str = "exact"
    note: str = ""

    def __len__(self) -> int:
        return int(self.indices.shape[0])


@dataclass(frozen=True)
class CameraNeighbours:
    """The nearest rows of every row, those of its camera apart from those of the others.

    Attributes:
        same: within the row's camera, the row itself first.
        other: in the other cameras.
    """

    same: Neighbours
    other: Neighbours

    def __len__(self) -> int:
        return len(self.same)

    @property
    def searched_twice(self) -> int:
        """Searches whose candidates were too close together for float32."""
        return self.same.searched_twice + self.other.searched_twice

    @property
    def recall(self) -> float:
        """The smaller of the two."""
        return min(self.same.recall, self.other.recall)

    @property
    def searched(self) -> str:
        """Name of the search."""
        return self.other.searched

    @property
    def note(self) -> str:
        """What a reader should know of the search."""
        return self.other.note or self.same.note


def nearest(
    features: NDArray[np.float32],
    k: int,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    search: Search | None = None,
) -> Neighbours:
    """The ``k`` nearest rows of every row, itself included; all N where there are fewer than k.

    Args:
        features: float32 (N, D), C order, rows of unit length (see ``unit_rows``).
        k: columns wanted, at least 1.
        threads: for the heaps and the float64 products; the matrix products use the threads that
            numpy's BLAS was given. Default: every core.
        progress: called with (blocks done, blocks in all).
        search: finds the candidates; default exact, on the CPU.

    Raises:
        InvalidArgument: ``k`` below 1.
    """
    if k < 1:
        raise InvalidArgument(f"k: is {k}; ask for at least one neighbour", field="k")
    layout = Layout.plain(features.shape[0])
    return _lists(features, layout, (("all", k),), threads, progress, search)[0]


def nearest_by_camera(
    features: NDArray[np.float32],
    cameras: NDArray[np.integer],
    *,
    same: int,
    other: int,
    threads: int | None = None,
    progress: Progress | None = None,
    search: Search | None = None,
) -> CameraNeighbours:
    """The nearest rows of every row within its camera and, apart, in the other cameras.

    Args:
        features, threads, progress, search: see :func:`nearest`.
        cameras: integer (N,).
        same: columns wanted within the camera, the row itself included, at least 1.
        other: columns wanted of other cameras, at least 1.

    Raises:
        InvalidArgument: ``same`` or ``other`` below 1, or ``cameras`` not one code a row.
    """
    for name, value in (("same", same), ("other", other)):
        if value < 1:
            raise InvalidArgument(f"{name}: is {value}; ask for at least one", field=name)
    if cameras.shape != features.shape[:1]:
        raise InvalidArgument(
            f"cameras: has shape {cameras.shape}; give one code for each of the "
            f"{features.shape[0]} rows",
            field="cameras",
        )
    layout = Layout.by_camera(cameras)
    wanted: tuple[tuple[Scope, int], ...] = (("same", same), ("other", other))
    return CameraNeighbours(*_lists(features, layout, wanted, threads, progress, search))


def _lists(
    features: NDArray[np.float32],
    layout: Layout,
    asked: tuple[tuple[Scope, int], ...],
    threads: int | None,
    progress: Progress | None,
    search: Search | None,
) -> list[Neighbours]:
    threads = threads or available_threads()
    search = search or ExactSearch()
    wanted: list[Wanted] = []
    others: list[int] = []
    for scope, columns in asked:
        most = int(layout.available(scope).max(initial=0))
        others.append(min(columns - (scope != "other"), most))
        wanted.append(Wanted(scope, min(others[-1] + _SPARE, most), others[-1]))
    sought = [want for want, count in zip(wanted, others, strict=True) if count]
    heaps = search(features, layout, sought, threads=threads, progress=progress) if sought else []
    found = iter(heaps)
    lists = [
        _ordered(features, layout, next(found), want.scope, count, search, threads)
        if count
        else _alone(features, want.scope)
        for want, count in zip(wanted, others, strict=True)
    ]
    if search.trusted:
        return lists
    recalls = [
        measured_recall(features, layout, made.indices, want.scope) if count else 1.0
        for made, want, count in zip(lists, wanted, others, strict=True)
    ]
    if not search.exact:
        return [
            replace(made, recall=recall, searched=search.name)
            for made, recall in zip(lists, recalls, strict=True)
        ]
    if min(recalls) < 1.0:
        note = (
            f"{search.name} found {min(recalls):.2%} of the neighbours of some rows where it must "
            "find all: searched again on the CPU"
        )
        again = _lists(features, layout, asked, threads, progress, ExactSearch())
        return [replace(made, note=note) for made in again]
    return [replace(made, searched=search.name) for made in lists]


def _alone(features: NDArray[np.float32], scope: Scope) -> Neighbours:
    """Lists without any other row."""
    rows = features.shape[0]
    if scope == "other":
        return Neighbours(np.empty((rows, 0), dtype=np.int32), np.empty((rows, 0)))
    own = np.einsum("nd,nd->n", features, features, dtype=np.float64)
    return Neighbours(
        np.arange(rows, dtype=np.int32)[:, None], (np.rint(own * SNAP) / SNAP)[:, None]
    )


def _ordered(
    features: NDArray[np.float32],
    layout: Layout,
    heaps: Heaps,
    scope: Scope,
    others: int,
    search: Search,
    threads: int,
) -> Neighbours:
    own = scope != "other"
    rows, width = heaps.indices.shape
    indices = np.empty((rows, others + own), dtype=np.int32)
    similarities = np.empty((rows, others + own), dtype=np.float64)
    certain = np.empty(rows, dtype=np.bool_)
    bar = np.full(rows, -np.inf)
    if search.exact:
        missing = layout.available(scope) > width
        bar[missing] = heaps.worst[missing] + product_error(features.shape[1])

    def order(start: int, stop: int) -> None:
        part = slice(start, stop)
        ids = layout.order[part]
        first, second = indices[part], similarities[part]
        if layout.grouped:
            first, second = np.empty_like(first), np.empty_like(second)
        rank(features, ids, heaps.indices[part], bar[part], own, first, second, certain[part])
        if layout.grouped:
            indices[ids], similarities[ids] = first, second

    for _ in map_blocks(order, row_blocks(rows, 512), threads=threads):
        pass
    if not search.exact:  # cells can hold too few rows to fill a list
        found = np.count_nonzero(indices >= 0, axis=1)[layout.order] - own
        certain &= found >= np.minimum(layout.available(scope), others)
    doubtful = np.flatnonzero(~certain)
    for start in range(0, doubtful.size, _RETRY_ROWS):
        again = exact_lists(
            features, layout, scope, doubtful[start : start + _RETRY_ROWS], others + own
        )
        indices[again.rows], similarities[again.rows] = again.indices, again.similarities
    return Neighbours(indices, similarities, int(doubtful.size))
