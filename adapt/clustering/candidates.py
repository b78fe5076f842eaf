"""Candidates for the nearest neighbours of every row, and the port through which they are found.

The neighbour lists themselves are made from the candidates by :mod:`adapt.clustering.neighbours`.
The search here is exact and runs on the CPU. The matrix of similarities is symmetric, so only its
blocks on and above the diagonal are multiplied (one float32 matrix product each), and every block
is offered to the heaps of its rows and of its columns: half the arithmetic of a flat search.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, row_blocks
from adapt.clustering.heaps import Heaps, offer_across, offer_down
from adapt.clustering.layout import Layout, Span, Wanted

__all__ = ["ExactSearch", "Progress", "Search", "compare_all"]

Progress = Callable[[int, int], None]

_BLOCK = 2048


class Search(Protocol):
    """Finds candidates by float32 products of unit rows.

    ``exact``, ``trusted`` and ``name`` speak of the last call.
    """

    @property
    def exact(self) -> bool:
        """Whether no row outside a full heap can have a larger float32 product."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether its lists need not be held against brute force on some rows."""
        ...

    @property
    def name(self) -> str:
        """For reports."""
        ...

    def __call__(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        wanted: Sequence[Wanted],
        *,
        threads: int,
        progress: Progress | None = None,
    ) -> list[Heaps]:
        """One ``Heaps`` for each of ``wanted``, by position of ``layout``.

        Args:
            features: float32 (N, D) unit rows.
            layout: the order of the heaps; it has cameras if any scope is not ``all``.
            wanted: what to collect.
            threads: for the work between matrix products.
            progress: called with (steps done, steps in all).
        """
        ...


class ExactSearch:
    """Every pair is looked at, on the CPU."""

    exact = True
    trusted = True
    name = "exact"

    def __call__(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        wanted: Sequence[Wanted],
        *,
        threads: int,
        progress: Progress | None = None,
    ) -> list[Heaps]:
        """See :class:`Search`."""
        heaps = [Heaps.empty(layout.rows, want.width, np.float32) for want in wanted]
        compare_all(
            features, layout, (0, layout.rows), wanted, heaps, threads=threads, progress=progress
        )
        return heaps


def compare_all(
    features: NDArray[np.float32],
    layout: Layout,
    part: tuple[int, int],
    wanted: Sequence[Wanted],
    heaps: Sequence[Heaps],
    *,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Offer every pair of the positions ``part`` (half-open) to the heaps (of all positions)."""
    start, stop = part
    blocks = [(start + top, start + bottom) for top, bottom in row_blocks(stop - start, _BLOCK)]
    buffer = np.empty(min(_BLOCK, stop - start) ** 2, dtype=np.float32)
    total, done = len(blocks) * (len(blocks) + 1) // 2, 0
    for first, (top, bottom) in enumerate(blocks):
        own = layout.features(features, top, bottom)
        for left, right in blocks[first:]:
            other = own if left == top else layout.features(features, left, right)
            shape = (bottom - top, right - left)
            product = buffer[: shape[0] * shape[1]].reshape(shape)
            np.matmul(own, other.T, out=product)
            for want, heap in zip(wanted, heaps, strict=True):
                span = layout.span(want.scope, slice(top, bottom), left, right)
                _offer(product, layout, span, top, left, heap, threads)
            done += 1
            if progress is not None:
                progress(done, total)


def _offer(
    product: NDArray[np.float32],
    layout: Layout,
    span: Span,
    top: int,
    left: int,
    heaps: Heaps,
    threads: int,
) -> None:
    height, width = product.shape
    own, other = slice(top, top + height), slice(left, left + width)
    row_ids, column_ids = layout.order[own], layout.order[other]
    heap_rows = np.arange(top, top + height)

    def across(start: int, stop: int) -> None:
        offer_across(
            product, heap_rows, row_ids, column_ids, *span, start, stop, False,
            heaps.scores, heaps.indices, heaps.worst,
        )  # fmt: skip

    def down(start: int, stop: int) -> None:
        offer_down(
            product, row_ids, *span, start, stop,
            heaps.scores[other], heaps.indices[other], heaps.worst[other],
        )  # fmt: skip

    for _ in map_blocks(across, row_blocks(height, -(-height // threads)), threads=threads):
        pass
    if left != top:
        for _ in map_blocks(down, row_blocks(width, -(-width // threads)), threads=threads):
            pass
