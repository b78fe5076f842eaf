"""Which sealed segments lie together on the device.

A search of the device costs a fixed time beside that of reading the memory, so segments are
uploaded in slabs of up to ``group`` and small slabs are merged, two of like size at a time: each
row is copied some ``log2(group)`` times in its life, and there are never many slabs. A slab cannot
change. A segment that was rewritten or dropped is a hole in it, passed over by bitmap, until more
than half of the slab is holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from service.gallery.segment import SegmentView
from service.gpu.half import Rounding

__all__ = ["Slab", "Step", "next_step"]


@dataclass(frozen=True, slots=True)
class Slab:
    """Segments on the device.

    Args:
        handle: Of the scanner.
        serials: The segments, in the order of their rows.
        starts: The first row of each.
        rows: Rows of all.
        rounding: What half precision made of them.
    """

    handle: Any
    serials: tuple[int, ...]
    starts: tuple[int, ...]
    rows: int
    rounding: Rounding


@dataclass(frozen=True, slots=True)
class Step:
    """Something to do: upload these segments as one slab, if any; then release these slabs."""

    upload: tuple[SegmentView, ...]
    release: tuple[Slab, ...]


def next_step(sealed: Sequence[SegmentView], slabs: Sequence[Slab], group: int) -> Step | None:
    """The next step towards having every sealed segment in one of few slabs; None at the end."""
    by_serial = {view.serial: view for view in sealed}
    living = [tuple(by_serial[n] for n in slab.serials if n in by_serial) for slab in slabs]
    empty = tuple(slab for slab, views in zip(slabs, living, strict=True) if not views)
    if empty:
        return Step((), empty)
    held = {serial for slab in slabs for serial in slab.serials}
    loose = [view for view in sealed if view.serial not in held]
    if loose:
        return Step(tuple(loose[:group]), ())
    for slab, views in zip(slabs, living, strict=True):
        if 2 * len(views) < len(slab.serials):
            return Step(views, (slab,))
    by_size = sorted(range(len(slabs)), key=lambda place: len(living[place]))
    for one, two in pairwise(by_size):
        few, many = len(living[one]), len(living[two])
        if few + many <= group and many <= 2 * few:
            return Step((*living[one], *living[two]), (slabs[one], slabs[two]))
    return None
