"""What one slab found, turned into candidates of its segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.gallery.candidates import Candidates
from service.gallery.planner import SegmentPlan
from service.gpu.scanner import Nearest, ScannerError
from service.gpu.slabs import Slab

__all__ = ["Part", "SlabPlan", "slab_plan"]


@dataclass(frozen=True, slots=True)
class Part:
    """A segment of a slab that has rows to compare.

    Args:
        number: The segment's place in the snapshot.
        plan: Its rows.
        start: Its first row in the slab.
    """

    number: int
    plan: SegmentPlan
    start: int


@dataclass(frozen=True, slots=True)
class SlabPlan:
    """The rows of a slab that are compared.

    Args:
        slab: Where they lie.
        parts: Their segments, in the order of the slab.
        count: Number of rows compared, at least 1.
        mask: bool (rows,), or None when it is all of them.
    """

    slab: Slab
    parts: tuple[Part, ...]
    count: int
    mask: NDArray[np.bool_] | None

    @property
    def bitmap(self) -> NDArray[np.uint8] | None:
        """The mask as a scanner takes it."""
        return None if self.mask is None else np.packbits(self.mask, bitorder="little")

    def checked(self, found: Nearest, queries: int, k: int) -> Nearest:
        """The answer, if it can be true.

        Raises:
            ScannerError: it has other rows than were asked for.
        """
        if found.rows.shape != (queries, k) or found.products.shape != (queries, k):
            raise ScannerError(f"{found.rows.shape} rows where {queries} x {k} were asked for")
        rows = found.rows
        if rows.min() < 0 or rows.max() >= self.slab.rows:
            raise ScannerError(f"rows {rows.min()} to {rows.max()} of a slab of {self.slab.rows}")
        if self.mask is not None and not self.mask[rows].all():
            raise ScannerError("a row was returned against the bitmap")
        if k > 1 and not (np.diff(np.sort(rows, axis=1)) > 0).all():
            raise ScannerError("a row was returned twice")
        if not (np.diff(found.products) <= 0).all() or not np.isfinite(found.products).all():
            raise ScannerError("products do not descend")
        return found

    def offer(self, found: Nearest, to: Sequence[Candidates]) -> None:
        """Offer each query's rows under the numbers of their segments."""
        starts = np.array([part.start for part in self.parts])
        numbers = np.array([part.number for part in self.parts], np.int32)
        for products, rows, candidates in zip(found.products, found.rows, to, strict=True):
            part = np.searchsorted(starts, rows, side="right") - 1
            candidates.offer(numbers[part], products, rows - starts[part])

    def forget(self, candidates: Sequence[Candidates]) -> None:
        """Take the offers back."""
        for each in candidates:
            for part in self.parts:
                each.forget(part.number)


def slab_plan(slab: Slab, plans: dict[int, tuple[int, SegmentPlan]]) -> SlabPlan | None:
    """What of a slab is compared, by the segments' serials; None when nothing is."""
    parts = tuple(
        Part(*plans[serial], start)
        for serial, start in zip(slab.serials, slab.starts, strict=True)
        if serial in plans
    )
    count = sum(part.plan.count for part in parts)
    if not count:
        return None
    if count == slab.rows:
        return SlabPlan(slab, parts, count, None)
    mask = np.zeros(slab.rows, dtype=bool)
    for part in parts:
        mask[part.start + part.plan.row_numbers()] = True
    return SlabPlan(slab, parts, count, mask)
