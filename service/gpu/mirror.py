"""The sealed segments of one index on the device: kept in step, and searched.

Slabs change and are searched on the device's thread alone, so none is released under a search.
What is to be uploaded is put together on the thread beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.gallery.candidates import Candidates
from service.gallery.planner import SegmentPlan
from service.gallery.segment import SegmentView
from service.gpu.device import Device
from service.gpu.fallbacks import GPU_FALLBACKS
from service.gpu.half import Rounding, product_error, rounding
from service.gpu.offers import SlabPlan, slab_plan
from service.gpu.scanner import ScannerError
from service.gpu.slabs import Slab, Step, next_step

__all__ = ["Mirror", "Scanned"]

logger = logging.getLogger(__name__)

# Candidates beyond those wanted: half precision has more near-ties than float32.
SPARE = 64
# Times as many are asked for when those were too few.
DEEPER = 8

Queries = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Scanned:
    """What the device found of some segments, by their places in the snapshot.

    Args:
        candidates: Of each query.
        segments: Whose rows were compared; all others are still to be.
        margin: Twice the error of a product.
    """

    candidates: list[Candidates]
    segments: frozenset[int]
    margin: float


class Mirror:
    """Slabs of one index.

    Args:
        device: Where they lie.
        views: The segments of the index now, the one being filled last.
        group: Segments a slab.
        cpu_rows: Slabs with at most so many rows to compare are left to the CPU.
    """

    def __init__(
        self,
        device: Device,
        views: Callable[[], Sequence[SegmentView]],
        *,
        group: int,
        cpu_rows: int,
    ) -> None:
        self._device = device
        self._views = views
        self._group = group
        self._cpu_rows = cpu_rows
        self._slabs: tuple[Slab, ...] = ()
        # By serial, of what lies on the device.
        self._roundings: dict[int, Rounding] = {}
        self._full = False
        self._following = False

    @property
    def slabs(self) -> tuple[Slab, ...]:
        """Those on the device."""
        return self._slabs

    def follow(self) -> None:
        """The index has changed; any thread."""
        if not self._following and self._device.usable:
            self._following = True
            self._device.feed(self._follow)

    def step(self) -> bool:
        """Do one thing that brings the device nearer to the index; whether there was one. On the
        thread beside the device's.
        """
        step = next_step(self._views()[:-1], self._slabs, self._group)
        if step is None or (step.upload and self._full) or not self._device.usable:
            return False
        vectors = [view.columns.vectors for view in step.upload]
        whole = np.concatenate(vectors) if vectors else None
        held = {serial for slab in self._slabs for serial in slab.serials}
        self._roundings = {
            serial: found for serial, found in self._roundings.items() if serial in held
        }
        for view in step.upload:
            if view.serial not in self._roundings:
                self._roundings[view.serial] = rounding(view.columns.vectors)
        return self._device.submit(lambda: self._exchange(step, whole)).result()

    def clear(self) -> None:
        """Give the memory back; nothing is uploaded any more."""
        for slab in self._slabs:
            self._device.scanner.release(slab.handle)
        self._slabs, self._full = (), True

    def scan(
        self, plans: Sequence[tuple[int, SegmentPlan]], queries: Queries, wanted: int
    ) -> Scanned:
        """Candidates among the rows of these plans that lie on the device.

        Raises:
            ScannerError: the device failed, or its answer cannot be true.
        """
        by_serial = {plan.view.serial: (number, plan) for number, plan in plans}
        planned = [slab_plan(slab, by_serial) for slab in self._slabs]
        chosen = [each for each in planned if each is not None and self._is_worth_it(each)]
        margin = 2.0 * product_error(_worst(chosen), queries) + 2.0**-22
        found = [Candidates(wanted, margin) for _ in queries]
        asked = wanted + wanted // 8 + SPARE
        lasts = [(each, *self._offered(each, queries, asked, found)) for each in chosen]
        segments = {part.number for each in chosen for part in each.parts}
        for each, count, last in lasts:
            if not self._completed(each, queries, count, last, found):
                each.forget(found)
                segments -= {part.number for part in each.parts}
        return Scanned(found, frozenset(segments), margin)

    def _completed(
        self,
        plan: SlabPlan,
        queries: Queries,
        count: int,
        last: NDArray[np.float32],
        found: list[Candidates],
    ) -> bool:
        """Ask deeper until no row of the slab can be missing; False when that is too deep."""
        while True:
            for each in found:
                each.settle()
            lowest = np.array([each.lowest for each in found])
            if count == plan.count or not (last >= lowest).any():
                return True
            if count >= self._device.scanner.max_k:
                GPU_FALLBACKS.labels("too_deep").inc()
                return False
            plan.forget(found)
            count, last = self._offered(plan, queries, DEEPER * count, found)

    def _offered(
        self, plan: SlabPlan, queries: Queries, asked: int, found: list[Candidates]
    ) -> tuple[int, NDArray[np.float32]]:
        """Offer the best of a slab; how many, and the last product of each query."""
        scanner = self._device.scanner
        count = min(asked, plan.count, scanner.max_k)
        nearest = plan.checked(
            scanner.search(plan.slab.handle, queries, count, plan.bitmap), len(queries), count
        )
        plan.offer(nearest, found)
        return count, nearest.products[:, -1]

    def _is_worth_it(self, plan: SlabPlan) -> bool:
        if plan.count <= self._cpu_rows:
            return False
        if plan.mask is not None and not self._device.selectors:
            GPU_FALLBACKS.labels("no_bitmaps").inc()
            return False
        return True

    def _follow(self) -> None:
        """One step, and the next at the end of the line: searches go between."""
        self._following = False
        try:
            more = self.step()
        except Exception as error:
            self._device.fail(f"{type(error).__name__}: {error}")
            return
        if more:
            self.follow()

    def _exchange(self, step: Step, vectors: NDArray[np.float32] | None) -> bool:
        made: tuple[Slab, ...] = ()
        if vectors is not None:
            try:
                made = (self._slab(step.upload, self._device.scanner.upload(vectors)),)
            except ScannerError as error:
                # No room, most likely. What is there stays of use; the rest is the CPU's.
                self._full = True
                GPU_FALLBACKS.labels("no_room").inc(len(step.upload))
                logger.error(
                    "%d segments stay on the CPU until others leave the GPU: %s",
                    len(step.upload),
                    error,
                )
                return True
        self._slabs = (*(slab for slab in self._slabs if slab not in step.release), *made)
        for slab in step.release:
            self._device.scanner.release(slab.handle)
        self._full = self._full and bool(step.upload)
        return True

    def _slab(self, views: Sequence[SegmentView], handle: Any) -> Slab:
        starts = [0, *accumulate(view.rows for view in views)]
        found = Rounding()
        for view in views:
            found = found.joined(self._roundings[view.serial])
        serials = tuple(view.serial for view in views)
        return Slab(handle, serials, tuple(starts[:-1]), starts[-1], found)


def _worst(plans: Sequence[SlabPlan]) -> Rounding:
    found = Rounding()
    for plan in plans:
        found = found.joined(plan.slab.rounding)
    return found
