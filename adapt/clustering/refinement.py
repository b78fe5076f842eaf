"""Neighbours of neighbours: what two rows have in common leads one to the other.

Neighbour descent (Dong et al., WWW 2011) over given lists, forward links only: in a round each row
is compared with the members of its members' lists. A pair of links that both stood there a round
ago led nowhere then and is not followed again, so later rounds cost little. Crops of one person
name each other, so lists that hold most of their true neighbours complete themselves in a few.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.blocks import map_blocks, row_blocks
from adapt.clustering.heaps import NOBODY, Heaps, sift
from adapt.clustering.kernel import kernel, reducing_kernel
from adapt.clustering.layout import Layout, Wanted

__all__ = ["Links", "refine"]

_BLOCK = 1024


@dataclass(frozen=True)
class Links:
    """What stands in the lists of every row, by position of a layout.

    Attributes:
        members: int32 (N, W): positions, those that are new since the round before first.
        fresh: int32 (N,): how many are new.
        filled: int32 (N,): how many there are.
    """

    members: NDArray[np.int32]
    fresh: NDArray[np.int32]
    filled: NDArray[np.int32]

    @classmethod
    def of(cls, heaps: Sequence[Heaps], layout: Layout, before: Links | None = None) -> Links:
        """The members of ``heaps``, of which no two hold the same row for any row."""
        position = np.empty(layout.rows, dtype=np.int32)
        position[layout.order] = np.arange(layout.rows, dtype=np.int32)
        width = sum(heap.indices.shape[1] for heap in heaps)
        links = cls(
            np.empty((layout.rows, width), dtype=np.int32),
            np.zeros(layout.rows, dtype=np.int32),
            np.zeros(layout.rows, dtype=np.int32),
        )
        if before is None:
            before = cls(links.members[:, :0], links.fresh, np.zeros_like(links.filled))
        known = np.full(layout.rows, -1, dtype=np.int32)
        for new in (True, False):
            for heap in heaps:
                _append(
                    heap.indices, position, before.members, before.filled, new, known,
                    links.members, links.filled,
                )  # fmt: skip
            if new:
                links.fresh[:] = links.filled
        return links


def refine(
    features: NDArray[np.float32],
    layout: Layout,
    wanted: Sequence[Wanted],
    heaps: Sequence[Heaps],
    links: Links,
    *,
    threads: int,
    rows: NDArray[np.int32] | None = None,
) -> None:
    """Offer each row what stands in the lists of what stands in its lists.

    Args:
        features: float32 (N, D) unit rows.
        layout: order of the heaps.
        wanted: the scope of each heap: ``all`` alone, or ``same`` and ``other`` or one of them.
        heaps: to improve.
        links: what they held before the round.
        threads: to run on.
        rows: int32 (N,): the positions in the order in which to work on them; where neighbours
            follow one another, what one reads is still in the cache for the next.
    """
    if rows is None:
        rows = np.arange(layout.rows, dtype=np.int32)
    nobody = Heaps.empty(layout.rows, 0, np.float32)
    by_scope = {want.scope: heap for want, heap in zip(wanted, heaps, strict=True)}
    same = by_scope.get("all", by_scope.get("same", nobody))
    other = by_scope.get("other", nobody)
    scratch = threading.local()

    def offer(start: int, stop: int) -> None:
        if not hasattr(scratch, "seen"):
            scratch.seen = np.full(layout.rows, -1, dtype=np.int32)
        _offer_members(
            features, layout.order, layout.first, links.members, links.fresh, links.filled,
            same.scores, same.indices, same.worst, other.scores, other.indices, other.worst,
            rows[start:stop], scratch.seen,
        )  # fmt: skip

    for _ in map_blocks(offer, row_blocks(layout.rows, _BLOCK), threads=threads):
        pass


@kernel
def _append(
    indices: NDArray[np.int32],
    position: NDArray[np.int32],
    earlier: NDArray[np.int32],
    earlier_filled: NDArray[np.int32],
    new: bool,
    known: NDArray[np.int32],
    members: NDArray[np.int32],
    filled: NDArray[np.int32],
) -> None:
    """Append those that are among the earlier ones, or those that are not."""
    known[:] = -1
    for p in range(indices.shape[0]):
        for m in range(earlier_filled[p]):
            known[earlier[p, m]] = p
        for h in range(indices.shape[1]):
            if indices[p, h] != NOBODY:
                j = position[indices[p, h]]
                if (known[j] != p) == new:
                    members[p, filled[p]] = j
                    filled[p] += 1


@reducing_kernel
def _product(features: NDArray[np.float32], i: int, j: int) -> np.float32:
    total = np.float32(0.0)
    for d in range(features.shape[1]):
        total += features[i, d] * features[j, d]
    return total


@kernel
def _offer_members(
    features: NDArray[np.float32],
    order: NDArray[np.int32],
    first: NDArray[np.int64],
    members: NDArray[np.int32],
    fresh: NDArray[np.int32],
    filled: NDArray[np.int32],
    same_scores: NDArray[np.float32],
    same_indices: NDArray[np.int32],
    same_worst: NDArray[np.float32],
    other_scores: NDArray[np.float32],
    other_indices: NDArray[np.int32],
    other_worst: NDArray[np.float32],
    rows: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> None:
    for p in rows:
        i = order[p]
        seen[p] = p
        for m in range(filled[p]):
            seen[members[p, m]] = p
        for m in range(filled[p]):
            via = members[p, m]
            for n in range(filled[via] if m < fresh[p] else fresh[via]):
                q = members[via, n]
                if seen[q] == p:
                    continue
                seen[q] = p
                j = order[q]
                if first[q] == first[p]:
                    if same_worst[p] == np.inf:
                        continue
                    score = float(_product(features, i, j))
                    if score >= same_worst[p] and (score > same_worst[p] or j < same_indices[p, 0]):
                        sift(same_scores[p], same_indices[p], score, j)
                        same_worst[p] = same_scores[p, 0]
                else:
                    if other_worst[p] == np.inf:
                        continue
                    score = float(_product(features, i, j))
                    if score >= other_worst[p] and (
                        score > other_worst[p] or j < other_indices[p, 0]
                    ):
                        sift(other_scores[p], other_indices[p], score, j)
                        other_worst[p] = other_scores[p, 0]
