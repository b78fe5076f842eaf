"""Nearest neighbours by cosine similarity, ordered in float64.

A search (:mod:`adapt.clustering.candidates`) hands over a few candidates more than asked for. Their
similarities are computed anew in float64 (:mod:`adapt.clustering.similarity`), and the list of an
exact search is proven when the last neighbour lies further above the worst candidate than float32
products can err. Rows where it does not (many near-equal crops) are searched again in float64.

Order: the row itself first (where it belongs to the list), then by similarity, largest first, then
by index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import available_threads, map_blocks, row_blocks
from adapt.clustering.candidates import ExactSearch, Progress, Search
from adapt.clustering.heaps import NOBODY, Heaps, offer_across
from adapt.clustering.kernel import kernel
from adapt.clustering.layout import Layout, Scope, Wanted
from adapt.clustering.similarity import SNAP, product_error, similarity
from resight.errors import InvalidArgument

__all__ = ["CameraNeighbours", "Neighbours", "nearest", "nearest_by_camera"]

_BLOCK = 2048
_SPARE = 8
_RETRY_ROWS = 256


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of every row.

    Attributes:
        indices: int32 (N, k); column 0 is the row itself, unless the list is of other cameras;
            -1 pads the lists of rows that have fewer: of a small camera, or from a search that is
            not exact.
        similarities: float64 (N, k), not increasing after column 0; 0 beside -1.
        searched_twice: rows whose candidates were too close together for float32.
    """

    indices: NDArray[np.int32]
    similarities: NDArray[np.float64]
    searched_twice: int = 0

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
        wanted.append(Wanted(scope, min(others[-1] + _SPARE, most)))
    sought = [want for want, count in zip(wanted, others, strict=True) if count]
    heaps = search(features, layout, sought, threads=threads, progress=progress) if sought else []
    found = iter(heaps)
    return [
        _ordered(features, layout, next(found), want.scope, count, search, threads)
        if count
        else _alone(features, want.scope)
        for want, count in zip(wanted, others, strict=True)
    ]


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

    def rank(start: int, stop: int) -> None:
        part = slice(start, stop)
        ids = layout.order[part]
        first, second = indices[part], similarities[part]
        if layout.grouped:
            first, second = np.empty_like(first), np.empty_like(second)
        _rank(features, ids, heaps.indices[part], bar[part], own, first, second, certain[part])
        if layout.grouped:
            indices[ids], similarities[ids] = first, second

    for _ in map_blocks(rank, row_blocks(rows, 512), threads=threads):
        pass
    doubtful = np.flatnonzero(~certain)
    for start in range(0, doubtful.size, _RETRY_ROWS):
        positions = doubtful[start : start + _RETRY_ROWS]
        _search_again(features, layout, scope, positions, indices, similarities)
    return Neighbours(indices, similarities, int(doubtful.size))


@kernel
def _rank(
    features: NDArray[np.float32],
    rows: NDArray[np.int32],
    candidates: NDArray[np.int32],
    bar: NDArray[np.float64],
    own: bool,
    indices: NDArray[np.int32],
    similarities: NDArray[np.float64],
    certain: NDArray[np.bool_],
) -> None:
    """Order the candidates by exact similarity; certain where the last one kept clears the bar."""
    width = candidates.shape[1]
    first = 1 if own else 0
    keep = indices.shape[1] - first
    exact = np.empty(width, dtype=np.float64)
    order = np.empty(width, dtype=np.int32)
    for r in range(rows.shape[0]):
        i = rows[r]
        found = 0
        for c in range(width):
            j = candidates[r, c]
            if j == NOBODY:
                continue
            value = similarity(features, i, j)
            at = found
            while at > 0 and (
                exact[at - 1] < value or (exact[at - 1] == value and order[at - 1] > j)
            ):
                exact[at] = exact[at - 1]
                order[at] = order[at - 1]
                at -= 1
            exact[at] = value
            order[at] = j
            found += 1
        if own:
            indices[r, 0] = i
            similarities[r, 0] = similarity(features, i, i)
        for c in range(keep):
            indices[r, first + c] = order[c] if c < found else -1
            similarities[r, first + c] = exact[c] if c < found else 0.0
        certain[r] = found < keep or exact[keep - 1] > bar[r]


def _search_again(
    features: NDArray[np.float32],
    layout: Layout,
    scope: Scope,
    positions: NDArray[np.int64],
    indices: NDArray[np.int32],
    similarities: NDArray[np.float64],
) -> None:
    """Search some rows against all in float64, ties by index, and write their lists."""
    ids = layout.order[positions]
    own = scope != "other"
    heaps = Heaps.empty(ids.size, indices.shape[1] - own, np.float64)
    queries = features[ids].astype(np.float64)
    for left, right in row_blocks(layout.rows, _BLOCK):
        product = queries @ layout.features(features, left, right).astype(np.float64).T
        product *= SNAP
        np.rint(product, out=product)
        product /= SNAP
        span = layout.span(scope, positions, left, right)
        offer_across(
            product, ids, layout.order[left:right], *span, 0, ids.size,
            heaps.scores, heaps.indices, heaps.worst,
        )  # fmt: skip
    found = np.empty((ids.size, indices.shape[1]), dtype=np.int32)
    values = np.empty(found.shape, dtype=np.float64)
    bar = np.full(ids.size, -np.inf)
    _rank(features, ids, heaps.indices, bar, own, found, values, np.empty(ids.size, dtype=np.bool_))
    indices[ids] = found
    similarities[ids] = values
