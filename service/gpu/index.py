"""The built-in index with a copy of its sealed segments on a GPU.

The CPU has every vector, every column and the last word: the planner chooses rows, the device
finds candidates among sealed segments in half precision, the CPU compares what is not on the
device (the segment that is being filled, what was sealed or rewritten a moment ago) and scores all
candidates in float64. A candidate counts if its product is within the margin of the k-th best, as
in ``service.gallery.index``, with the margin that half precision needs (``half``): the answers are
the same, row for row and bit for bit.

A filter that leaves a slab few rows gathers them on the CPU, and so does every filter where the
device does not honour bitmaps. A device that fails, or answers what cannot be true, is not asked
again, and the CPU answers that search, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.domain.ports import IndexHits, RowFilter
from service.domain.query import SearchMode
from service.gallery.candidates import Candidates
from service.gallery.comparison import compare
from service.gallery.index import SEGMENT_ROWS, SegmentedIndex, Snapshot
from service.gallery.planner import SegmentPlan
from service.gallery.ranking import rank
from service.gallery.row_ids import IdSet, id_halves
from service.gallery.search_threads import SearchThreads
from service.gpu.device import Device
from service.gpu.mirror import Mirror, Scanned

__all__ = ["GpuIndex"]

# Reading so many rows at random on the CPU takes about as long as the device takes to look at a
# slab. By arithmetic, not measured.
CPU_ROWS = 2048
# Segments a slab: a million rows, a gigabyte at 512 values.
GROUP = 16


class GpuIndex(SegmentedIndex):
    """A SegmentedIndex whose sealed segments are searched by a GPU. Threads: as there.

    Args:
        dimension: Values a vector.
        device: The GPU; shared by every index.
        gather_rows, segment_rows, threads: As SegmentedIndex.
        group: Segments a slab.
        cpu_rows: Slabs with at most so many rows to compare are left to the CPU.

    Raises:
        FailedPrecondition: the device gives wrong neighbours for this dimension.
    """

    def __init__(
        self,
        dimension: int,
        *,
        device: Device,
        gather_rows: int = 16_384,
        segment_rows: int = SEGMENT_ROWS,
        threads: SearchThreads | None = None,
        group: int = GROUP,
        cpu_rows: int = CPU_ROWS,
    ) -> None:
        super().__init__(
            dimension, gather_rows=gather_rows, segment_rows=segment_rows, threads=threads
        )
        device.check(dimension)
        self._device = device
        self._mirror = Mirror(device, lambda: self.snapshot.views, group=group, cpu_rows=cpu_rows)

    @property
    def rows_on_device(self) -> int:
        """Rows of the slabs there, removed ones included."""
        return sum(slab.rows for slab in self._mirror.slabs)

    @property
    def device_bytes(self) -> int:
        """Bytes of the slabs there: half precision."""
        return self.rows_on_device * self.dimension * 2

    def settle(self) -> None:
        """Wait until everything that is to be on the device is there."""
        while self._device.feed(self._mirror.step).result():
            pass

    def discard(self) -> None:
        """As ``close``."""
        self.close()

    def close(self) -> None:
        """Give the device's memory back; the CPU answers alone from then on."""
        self._device.feed(lambda: self._device.submit(self._mirror.clear).result()).result()

    def _publish(self) -> None:
        super()._publish()
        self._mirror.follow()

    def _answers(
        self,
        snapshot: Snapshot,
        plans: list[tuple[int, SegmentPlan]],
        queries: NDArray[np.float32],
        top_k: int,
        row_filter: RowFilter,
        min_score: float | None,
    ) -> list[IndexHits]:
        excluded = IdSet(id_halves(list(row_filter.exclude_ids)))
        wanted = top_k + len(excluded)
        scanned = self._scanned(plans, queries, wanted)
        margin = max(self._margin, scanned.margin)
        rest = [(number, plan) for number, plan in plans if number not in scanned.segments]
        shards = self._threads.map(
            lambda shard: compare(shard, queries, wanted, margin), self._threads.shards(rest)
        )
        whole = bool(scanned.segments) or any(plan.rows is None for _, plan in rest)
        answers = []
        for place, query in enumerate(queries):
            best = Candidates(wanted, margin)
            best.take([scanned.candidates[place], *(shard[place] for shard in shards)])
            ranked = rank(snapshot.views, best, query, top_k, excluded, min_score)
            answers.append(
                IndexHits(
                    ids=ranked.ids,
                    scores=ranked.scores,
                    mode=(
                        SearchMode.EXACT_SCAN
                        if whole or not snapshot.living
                        else SearchMode.EXACT_GATHER
                    ),
                    rows_scanned=sum(plan.count for _, plan in plans),
                    rows_total=snapshot.living,
                )
            )
        return answers

    def _scanned(
        self, plans: Sequence[tuple[int, SegmentPlan]], queries: NDArray[np.float32], wanted: int
    ) -> Scanned:
        if self._device.usable and len(queries) and plans:
            try:
                return self._device.submit(
                    lambda: self._mirror.scan(plans, queries, wanted)
                ).result()
            except Exception as error:
                self._device.fail(f"{type(error).__name__}: {error}")
        return Scanned([Candidates(wanted, 0.0) for _ in queries], frozenset(), 0.0)
