"""Approximate neighbours with the recall asked for.

1. Cells: an inverted file (Sivic and Zisserman, ICCV 2003; Jegou et al., PAMI 2011). Each row is
   compared with the rows of the cells nearest to it (``cell_index``).
2. Neighbours of neighbours (``refinement``), round after round.

How much of either follows from the data. The exact neighbours of some random rows are found by
brute force; a neighbour is met if its cell is among the first p of the row, so the recall of every
p is known before anything is searched, and that of the lists is known after each round. The first p
is the smallest that meets 80 % of the neighbours. Rounds follow while they gain; where they stop
short of the recall asked for, p is doubled and rounds follow again, at most up to the p that
reaches the recall by itself. Where the first p would already compare as many pairs as the exact
search does, and among few rows, all are compared.

A search that stops at what some rows show is a little worse on others: what is reported is measured
on rows of its own (``adapt.clustering.recall``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.calibration import Calibration
from adapt.clustering.candidates import Progress, compare_all
from adapt.clustering.cell_index import CellIndex
from adapt.clustering.cells import cell_centres, default_cells
from adapt.clustering.heaps import Heaps
from adapt.clustering.layout import Layout, Wanted
from adapt.clustering.refinement import Links, refine
from resight.errors import InvalidArgument

__all__ = ["CellSearch"]

_ROUGH = 0.8
_LEAST_GAIN = 0.002
# Fewer rows are compared all with all at once.
_FEW_ROWS = 10_000
# Share of all pairs from which on the exact search, which looks at each pair once, is no slower.
_NO_SAVING = 0.5


class CellSearch:
    """Approximate search with a recall asked for.

    Attributes:
        exact: whether the last call compared everything after all.
        cells: most cells that a set of rows was sorted into in the last call.
        looked_into: most cells that a row of the last call was compared with.
        rounds: rounds of refinement in the last call.
        seconds: wall time of the last call by step: ``cells`` (with calibration and what was
            compared whole) and ``rounds``.
    """

    def __init__(self, *, recall: float = 0.98, cells: int | None = None, seed: int = 0) -> None:
        """Sets the search up.

        Args:
            recall: share of the exact neighbours to be found, above 0 and at most 1.
            cells: number of cells; default ``default_cells``, and none for few rows.
            seed: of the samples and the cells.

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
        self.cells = 0
        self.looked_into = 0
        self.rounds = 0
        self.seconds: dict[str, float] = {}

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
        started = time.perf_counter()
        self.seconds = {"rounds": 0.0}
        heaps = [Heaps.empty(layout.rows, want.width, np.float32) for want in wanted]
        # A camera's own crops are a problem of their own, with cells of their own.
        ranges = [
            (part, want, heap)
            for want, heap in zip(wanted, heaps, strict=True)
            for part in (layout.cameras if want.scope == "same" else [(0, layout.rows)])
        ]
        whole = sum(stop - start for (start, stop), _, _ in ranges)
        done = 0
        parts: list[_Part] = []
        for (start, stop), want, heap in ranges:
            share = _share(progress, done, stop - start, whole)
            part = self._started(features, layout, (start, stop), want, heap, threads, share)
            if part is not None:
                parts.append(part)
            done += stop - start
        self.exact = not parts
        self.rounds = self._complete(features, layout, wanted, heaps, parts, threads)
        self.looked_into = max((part.looked_into for part in parts), default=0)
        self.cells = max((part.index.cells for part in parts), default=0)
        self.seconds["cells"] = time.perf_counter() - started - self.seconds["rounds"]
        return heaps

    def _started(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        part: tuple[int, int],
        want: Wanted,
        heap: Heaps,
        threads: int,
        progress: Progress | None,
    ) -> _Part | None:
        """One scope among some positions, after the first few cells; None if all were compared."""
        rows = layout.order[part[0] : part[1]]
        cells = min(self._cells or default_cells(rows.size), rows.size)
        if rows.size > _FEW_ROWS or self._cells:
            centres = cell_centres(features, rows, cells, seed=self._seed, threads=threads)
            calibration = Calibration.of(features, layout, part, want, seed=self._seed + 1)
            rough, enough = calibration.cells_for(
                (min(_ROUGH, self._recall), self._recall), features, centres, threads=threads
            )
            if rough / cells + cells / rows.size < _NO_SAVING:
                index = CellIndex(features, layout, part, centres, threads=threads)
                made = _Part(index, calibration, want, heap, enough)
                made.look(rough, progress)
                made.measure()
                return made
        compare_all(features, layout, part, [want], [heap], threads=threads, progress=progress)
        return None

    def _complete(
        self,
        features: NDArray[np.float32],
        layout: Layout,
        wanted: Sequence[Wanted],
        heaps: Sequence[Heaps],
        parts: Sequence[_Part],
        threads: int,
    ) -> int:
        """Refine, and look into more cells, until the recall is reached; returns the rounds."""
        links: Links | None = None
        order = _by_cell(parts, layout.rows)
        rounds = 0
        gained = True
        while short := [part for part in parts if part.recall < self._recall]:
            if gained:
                started = time.perf_counter()
                links = Links.of(heaps, layout, links)
                refine(features, layout, wanted, heaps, links, threads=threads, rows=order)
                rounds += 1
                self.seconds["rounds"] += time.perf_counter() - started
            else:
                widened = [part.widen() for part in short]
                if not any(widened):
                    break
            gains = [part.measure() for part in parts]
            gained = max(gains) >= _LEAST_GAIN
        return rounds


class _Part:
    """One scope among some positions, of which not all were compared.

    Attributes:
        index: the cells of the positions.
        recall: share of the neighbours of some rows that the heaps hold.
        looked_into: nearest cells that each row was compared with.
    """

    def __init__(
        self,
        index: CellIndex,
        calibration: Calibration,
        want: Wanted,
        heap: Heaps,
        enough: int,
    ) -> None:
        self.index = index
        self.recall = 0.0
        self.looked_into = 0
        self._calibration = calibration
        self._want = want
        self._heap = heap
        self._enough = enough

    def look(self, near: int, progress: Progress | None = None) -> None:
        """Compare with the ``near`` nearest cells, without those that were looked into before."""
        self.index.compare((self.looked_into, near), self._want, self._heap, progress=progress)
        self.looked_into = near

    def widen(self) -> bool:
        """Look into twice as many cells; False where these would be more than are needed."""
        if self.looked_into >= self._enough:
            return False
        self.look(min(2 * self.looked_into, self._enough))
        return True

    def measure(self) -> float:
        """Measure the recall; returns by how much it has risen."""
        before, self.recall = self.recall, self._calibration.recall(self._heap)
        return self.recall - before


def _by_cell(parts: Sequence[_Part], rows: int) -> NDArray[np.int32]:
    """The positions by their cell, where every row has one of the same set of cells."""
    for part in parts:
        if part.index.rows == rows:
            return np.argsort(part.index.home, kind="stable").astype(np.int32)
    return np.arange(rows, dtype=np.int32)


def _share(progress: Progress | None, done: int, size: int, whole: int) -> Progress | None:
    """``progress`` of ``size`` rows, after ``done``, of ``whole``."""
    if progress is None:
        return None
    return lambda step, steps: progress(round(done + size * step / steps), whole)
