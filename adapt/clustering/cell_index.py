"""Rows compared with the members of the cells that they look into.

Every row is a query: all rows that look into a cell are compared with its members in one matrix
product, so that nothing is copied but the rows at hand, and features may be memory-mapped. Rows
are taken 131,072 at a time at most, so memory beside the heaps does not follow the number of cells
that are looked into.
"""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, one_product_a_thread, row_blocks
from adapt.clustering.candidates import Progress
from adapt.clustering.cells import nearest_cells
from adapt.clustering.heaps import Heaps, offer_across
from adapt.clustering.kernel import kernel
from adapt.clustering.layout import Layout, Wanted

__all__ = ["CellIndex"]

_SHARD = 131_072
_QUERIES = 8192
_MEMBERS = 4096


class CellIndex:
    """The cells of some positions of a layout.

    Attributes:
        home: int32 (R,): the nearest cell of each position, of which it is a member.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        part: tuple[int, int],
        centres: NDArray[np.float32],
        *,
        threads: int,
    ) -> None:
        """Sorts the positions into cells.

        Args:
            features: float32 (N, D) unit rows.
            layout: order of the heaps.
            part: half-open range of positions, R of them.
            centres: float32 (C, D).
            threads: each works for rows of its own.
        """
        self._features = features
        self._layout = layout
        self._part = part
        self._centres = centres
        self._threads = threads
        rows = layout.order[part[0] : part[1]]
        self.home = nearest_cells(features, rows, centres, 1, threads=threads)[:, 0]
        self._starts, self._members = _by_cell(self.home[:, None], centres.shape[0], part[0])

    @property
    def rows(self) -> int:
        """R."""
        return int(self.home.size)

    @property
    def cells(self) -> int:
        """C."""
        return int(self._centres.shape[0])

    def compare(
        self,
        ranks: tuple[int, int],
        want: Wanted,
        heap: Heaps,
        *,
        progress: Progress | None = None,
    ) -> None:
        """Offer each row the members of its nearest cells.

        Args:
            ranks: half-open range of nearness: (0, p) for the p nearest cells, (p, q) for those
                from there to q.
            want: the scope of ``heap``.
            heap: to fill; rows that it holds already are passed over.
            progress: called with (steps done, steps in all).
        """
        cells = self.cells
        rounds = -(-self.rows // (_SHARD * self._threads))
        shards = row_blocks(self.rows, -(-self.rows // (rounds * self._threads)))
        done = 0
        lock = threading.Lock()

        def shard(start: int, stop: int) -> None:
            nonlocal done
            first = self._part[0] + start
            rows = self._layout.order[first : self._part[0] + stop]
            near = nearest_cells(self._features, rows, self._centres, ranks[1], threads=1)
            near = np.ascontiguousarray(near[:, ranks[0] :])
            starts, lookers = _by_cell(near, cells, first)
            del near
            for cell in range(cells):
                inside = self._members[self._starts[cell] : self._starts[cell + 1]]
                self._compare(lookers[starts[cell] : starts[cell + 1]], inside, want, heap)
                if progress is not None:
                    with lock:
                        done += 1
                        progress(done, cells * len(shards))

        with one_product_a_thread():
            for _ in map_blocks(shard, shards, threads=self._threads):
                pass

    def _compare(
        self, looking: NDArray[np.int32], inside: NDArray[np.int32], want: Wanted, heap: Heaps
    ) -> None:
        """Offer the rows at positions ``inside`` to the heaps of those at ``looking``."""
        if not looking.size:
            return
        layout = self._layout
        for left, right in row_blocks(inside.size, _MEMBERS):
            columns = inside[left:right].astype(np.int64)
            column_ids = layout.order[columns]
            transposed = self._features[column_ids].T
            for top, bottom in row_blocks(looking.size, _QUERIES):
                positions = looking[top:bottom].astype(np.int64)
                ids = layout.order[positions]
                product = self._features[ids] @ transposed
                span = layout.span_among(want.scope, positions, columns)
                offer_across(
                    product, positions, ids, column_ids, *span, 0, positions.size, True,
                    heap.scores, heap.indices, heap.worst,
                )  # fmt: skip


@kernel
def _by_cell(
    near: NDArray[np.int32], cells: int, first: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
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
    listed = np.empty(rows * width, dtype=np.int32)
    for i in range(rows):
        for p in range(width):
            c = near[i, p]
            listed[cursor[c]] = first + i
            cursor[c] += 1
    return starts, listed
