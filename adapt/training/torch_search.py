"""Exact neighbour candidates on a GPU, for ``adapt.clustering``, which knows no torch.

Blocks of queries are multiplied with blocks of the base in float32 (TF32 and autocast off, so that
``adapt.clustering.similarity.product_error`` bounds the error) and the best are kept by ``topk``.
The lists are then ordered and proven in float64 as those of the CPU's search are, and some rows are
held against brute force: neighbours from a GPU were silently wrong before (faiss #2126).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adapt.clustering.blocks import row_blocks
from adapt.clustering.candidates import Progress
from adapt.clustering.heaps import NOBODY, Heaps
from adapt.clustering.layout import Layout, Wanted

__all__ = ["TorchSearch", "torch_search"]

_QUERIES = 2048
_BASE = 32_768
# Share of the free memory that the base may take; without room it is sent block by block.
_RESIDENT = 0.6

_Blocks = Callable[[], Iterator[tuple[int, int, Tensor]]]


def torch_search(device: torch.device) -> TorchSearch | None:
    """The search for ``device``; None on a CPU, where the clustering's own is faster."""
    return None if device.type == "cpu" else TorchSearch(device)


class TorchSearch:
    """An exact search on ``device``; see :class:`adapt.clustering.candidates.Search`."""

    exact = True
    trusted = False

    def __init__(self, device: torch.device, *, queries: int = _QUERIES, base: int = _BASE) -> None:
        """Sets the search up.

        Args:
            device: to multiply on.
            queries, base: rows of a block.
        """
        self._device = device
        self._queries = queries
        self._base = base

    @property
    def name(self) -> str:
        """For reports."""
        return f"exact on {self._device}"

    @torch.inference_mode()
    def __call__(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        wanted: Sequence[Wanted],
        *,
        threads: int,  # noqa: ARG002 - the work between products is the device's
        progress: Progress | None = None,
    ) -> list[Heaps]:
        """One ``Heaps`` for each of ``wanted``, by position of ``layout``."""
        rows = layout.rows
        found = [Heaps.empty(rows, want.width, np.float32) for want in wanted]
        queries = row_blocks(rows, self._queries)
        with _full_float32(self._device):
            base = self._blocks(features, layout)
            for done, (top, bottom) in enumerate(queries):
                own = self._send(layout.features(features, top, bottom))
                best: list[tuple[Tensor, Tensor] | None] = [None] * len(wanted)
                for left, right, other in base():
                    product = own @ other.T
                    _hide_diagonal(product, top, left)
                    for w, want in enumerate(wanted):
                        scores = self._in_scope(product, layout, want, top, bottom, left, right)
                        best[w] = _merged(best[w], scores, left, want.width)
                for heap, kept in zip(found, best, strict=True):
                    if kept is not None:
                        _write(heap, top, bottom, kept, layout)
                if progress is not None:
                    progress(done + 1, len(queries))
        return found

    def _blocks(self, features: NDArray[np.float32], layout: Layout) -> _Blocks:
        resident = self._device.type == "cpu" or (
            features.nbytes < _RESIDENT * torch.cuda.mem_get_info(self._device)[0]
        )
        ranges = row_blocks(layout.rows, self._base)
        held = (
            [self._send(layout.features(features, left, right)) for left, right in ranges]
            if resident
            else None
        )

        def blocks() -> Iterator[tuple[int, int, Tensor]]:
            for number, (left, right) in enumerate(ranges):
                if held is not None:
                    yield left, right, held[number]
                else:
                    yield left, right, self._send(layout.features(features, left, right))

        return blocks

    def _send(self, rows: NDArray[np.float32]) -> Tensor:
        # A memory-mapped array is read-only, which torch refuses to share.
        return torch.from_numpy(rows if rows.flags.writeable else rows.copy()).to(self._device)

    def _in_scope(
        self,
        product: Tensor,
        layout: Layout,
        want: Wanted,
        top: int,
        bottom: int,
        left: int,
        right: int,
    ) -> Tensor:
        if want.scope == "all":
            return product
        low, high, inside = layout.span(want.scope, slice(top, bottom), left, right)
        column = torch.arange(right - left, device=self._device)
        same = (column >= torch.from_numpy(low).to(self._device)[:, None]) & (
            column < torch.from_numpy(high).to(self._device)[:, None]
        )
        return product.masked_fill(~same if inside else same, -torch.inf)


@contextmanager
def _full_float32(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _hide_diagonal(product: Tensor, top: int, left: int) -> None:
    """No row is its own candidate."""
    height, width = product.shape
    first = max(top, left)
    count = min(top + height, left + width) - first
    if count > 0:
        at = torch.arange(first, first + count, device=product.device)
        product[at - top, at - left] = -torch.inf


def _merged(
    best: tuple[Tensor, Tensor] | None, scores: Tensor, left: int, width: int
) -> tuple[Tensor, Tensor]:
    values, columns = scores.topk(min(width, scores.shape[1]), dim=1)
    positions = columns + left
    if best is not None:
        values = torch.cat([best[0], values], dim=1)
        positions = torch.cat([best[1], positions], dim=1)
        values, chosen = values.topk(min(width, values.shape[1]), dim=1)
        positions = positions.gather(1, chosen)
    return values, positions


def _write(heap: Heaps, top: int, bottom: int, kept: tuple[Tensor, Tensor], layout: Layout) -> None:
    values, positions = (part.cpu().numpy() for part in kept)
    heap.scores[top:bottom] = values
    heap.indices[top:bottom] = np.where(np.isneginf(values), NOBODY, layout.order[positions])
    heap.worst[top:bottom] = values.min(axis=1)
