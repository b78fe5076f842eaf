"""Approximate neighbours: each row is compared with the rows of the cells nearest to it.

An inverted file (Sivic and Zisserman, ICCV 2003; Jegou et al., PAMI 2011) for the case that every
row is a query: all rows that look into a cell are compared with its members in one matrix product,
so that nothing is copied but the rows at hand, and features may be memory-mapped.

How many cells are looked into follows from the data. The exact neighbours of some random rows are
found by brute force; a neighbour is met if its cell is among the first p of the row, so the recall
of every p is known beforehand, and the smallest p that reaches the recall asked for is taken. Where
that would compare as many pairs as the exact search does, and among few rows, all are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, row_blocks
from adapt.clustering.candidates import Progress, compare_all
from adapt.clustering.cells import cell_centres, default_cells, nearest_cells
from adapt.clustering.exact_rows import exact_lists
from adapt.clustering.heaps import Heaps, offer_across
from adapt.clustering.kernel import kernel
from adapt.clustering.layout import Layout, Span, Wanted
from resight.errors import InvalidArgument

__all__ = ["CellSearch"]

_CALIBRATION_ROWS = 512
_QUERIES = 8192
# Fewer rows are compared all with all at once.
_FEW_ROWS = 10_000
# Share of all pairs from which on the exact search, which looks at each pair once, is no slower.
_NO_SAVING = 0.5
_MEMBERS = 4096
_LEAST_ROWS = 512


class CellSearch:
    """Approximate search with a recall asked for.

    Attributes:
        exact: whether the last call compared everything after all.
        looked_into: most cells that a row of the last call was compared with.
    """

    def __init__(self, *, recall: float = 0.98, cells: int | None = None, seed: int = 0) -> None:
        """Sets the search up.

        Args:
            recall: share of the exact neighbours to be found, above 0 and at most 1.
            cells: number of cells; default ``default_cells``, and none for few rows.
            seed: of the sample and the cells.

        Raises:
            InvalidArgument: ``recall`` outside its bounds.
        """
        if not 0.0 < recall <= 1.0:
            raise InvalidArgument(
                f"recall: is {recall}; it must be above 0 and at most 1", field="recall"
            )
        self._recall = recall
        self._cells = cells
        self._seed = seed
        self.exact = False
        self.looked_into = 0

    @property
    def trusted(self) -> bool:
        """Only where it fell back to the exact search."""
        return self.exact

    @property
    def name(self) -> str:
        """For reports."""
        return "exact" if self.exact else "approximate"

    def __call__(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        wanted: Sequence[Wanted],
        *,
        threads: int,
        progress: Progress | None = None,
    ) -> list[Heaps]:
        """See :class:`adapt.clustering.candidates.Search`."""
        heaps = [Heaps.empty(layout.rows, width, np.float32) for _, width in wanted]
        # A camera's own crops are a problem of their own, with cells of their own.
        parts = [
            (part, want, heap)
            for want, heap in zip(wanted, heaps, strict=True)
            for part in (layout.cameras if want.scope == "same" else [(0, layout.rows)])
        ]
        self.exact, self.looked_into = True, 0
        whole = sum(stop - start for (start, stop), _, _ in parts)
        done = 0
        for part, want, heap in parts:
            size = part[1] - part[0]
            self._search(
                features, layout, part, want, heap, threads, _share(progress, done, size, whole)
            )
            done += size
        return heaps

    def _search(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        part: tuple[int, int],
        want: Wanted,
        heap: Heaps,
        threads: int,
        progress: Progress | None,
    ) -> None:
        """One scope among the positions ``part``."""
        rows = layout.order[part[0] : part[1]]
        cells = min(self._cells or default_cells(rows.size), rows.size)
        needed = cells
        if rows.size > _FEW_ROWS or self._cells:
            centres = cell_centres(features, rows, cells, seed=self._seed, threads=threads)
            needed = self._needed(features, layout, part, centres, want, threads)
        if needed / cells + cells / rows.size >= _NO_SAVING:
            compare_all(features, layout, part, [want], [heap], threads=threads, progress=progress)
            return
        self.exact, self.looked_into = False, max(self.looked_into, needed)
        near = nearest_cells(features, rows, centres, needed, threads=threads)
        member_starts, members = _by_cell(near[:, :1], cells, part[0])
        looker_starts, lookers = _by_cell(near, cells, part[0])
        del near
        for cell in range(cells):
            inside = members[member_starts[cell] : member_starts[cell + 1]]
            looking = lookers[looker_starts[cell] : looker_starts[cell + 1]]
            _compare(features, layout, looking, inside, want, heap, threads)
            if progress is not None:
                progress(cell + 1, cells)

    def _needed(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        part: tuple[int, int],
        centres: NDArray[np.float32],
        want: Wanted,
        threads: int,
    ) -> int:
        """Cells to look into for the recall asked for, on some random rows of ``part``."""
        random = np.random.default_rng(self._seed + 1)
        taken = part[0] + random.permutation(part[1] - part[0])[:_CALIBRATION_ROWS]
        taken = np.sort(taken)
        columns = want.width + (want.scope != "other")
        found = exact_lists(features, layout, want.scope, taken, columns)
        row, column = np.nonzero((found.indices >= 0) & (found.indices != found.rows[:, None]))
        if not row.size:
            return 1
        cells = centres.shape[0]
        order = nearest_cells(features, found.rows, centres, cells, threads=threads)
        rank_of = np.empty_like(order)
        np.put_along_axis(rank_of, order, np.arange(cells, dtype=np.int32)[None], axis=1)
        home = nearest_cells(features, found.indices[row, column], centres, 1, threads=threads)
        ranks = np.sort(rank_of[row, home[:, 0]])
        return int(ranks[int(np.ceil(self._recall * ranks.size)) - 1]) + 1


def _share(progress: Progress | None, done: int, size: int, whole: int) -> Progress | None:
    """``progress`` of ``size`` rows, after ``done``, of ``whole``."""
    if progress is None:
        return None
    return lambda step, steps: progress(round(done + size * step / steps), whole)


def _compare(
    features: NDArray[np.float32],
    layout: Layout,
    looking: NDArray[np.int64],
    inside: NDArray[np.int64],
    want: Wanted,
    heap: Heaps,
    threads: int,
) -> None:
    """Offer the rows at positions ``inside`` to the heaps of those at ``looking``."""
    for left, right in row_blocks(inside.size, _MEMBERS):
        columns = inside[left:right]
        column_ids = layout.order[columns]
        transposed = features[column_ids].T
        for top, bottom in row_blocks(looking.size, _QUERIES):
            positions = looking[top:bottom]
            ids = layout.order[positions]
            product = features[ids] @ transposed
            span = layout.span_among(want.scope, positions, columns)
            _offer(product, positions, ids, column_ids, span, heap, threads)


def _offer(
    product: NDArray[np.float32],
    positions: NDArray[np.int64],
    ids: NDArray[np.int32],
    column_ids: NDArray[np.int32],
    span: Span,
    heap: Heaps,
    threads: int,
) -> None:
    def across(start: int, stop: int) -> None:
        offer_across(
            product, positions, ids, column_ids, *span, start, stop,
            heap.scores, heap.indices, heap.worst,
        )  # fmt: skip

    parts = row_blocks(positions.size, max(_LEAST_ROWS, -(-positions.size // threads)))
    for _ in map_blocks(across, parts, threads=threads):
        pass


@kernel
def _by_cell(
    near: NDArray[np.int32], cells: int, first: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The positions that name each cell in ``near`` (N, P), ascending, the first row at ``first``.

    Returns:
        Starts (cells + 1,) and positions.
    """
    rows, width = near.shape
    starts = np.zeros(cells + 1, dtype=np.int64)
    for i in range(rows):
        for p in range(width):
            starts[near[i, p] + 1] += 1
    for c in range(cells):
        starts[c + 1] += starts[c]
    cursor = starts[:-1].copy()
    listed = np.empty(rows * width, dtype=np.int64)
    for i in range(rows):
        for p in range(width):
            c = near[i, p]
            listed[cursor[c]] = first + i
            cursor[c] += 1
    return starts, listed
