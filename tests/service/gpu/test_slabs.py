"""Slabs follow the segments: all there in the end, few, and with little waste."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.gpu.half import Rounding
from service.gpu.slabs import Slab, next_step


@dataclass(frozen=True)
class View:
    """All that slabs ask of a segment."""

    serial: int
    rows: int = 10


def settled(views: list[Any], slabs: list[Slab], group: int) -> tuple[list[Slab], int]:
    """Steps until there are none; how many rows they copied."""
    copied = 0
    for _ in range(1000):
        step = next_step(views, slabs, group)
        if step is None:
            return slabs, copied
        assert step.upload or step.release
        assert len(step.upload) <= group
        slabs = [slab for slab in slabs if slab not in step.release]
        if step.upload:
            serials = tuple(view.serial for view in step.upload)
            copied += sum(view.rows for view in step.upload)
            slabs.append(Slab(object(), serials, (), 10 * len(serials), Rounding()))
    raise AssertionError("the steps do not end")


@given(st.integers(1, 16), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_any_history_ends_with_every_segment_in_one_slab(group: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    views: list[View] = []
    slabs: list[Slab] = []
    serial = 0
    for _ in range(30):
        if rng.random() < 0.6 or not views:
            added = int(rng.integers(1, 20))
            views += [View(serial + number) for number in range(added)]
            serial += added
        else:
            views = [view for view in views if rng.random() < 0.7]
        slabs, _ = settled(views, slabs, group)
        held = [serial for slab in slabs for serial in slab.serials]
        assert len(held) == len(set(held))
        there = {view.serial for view in views}
        assert there <= set(held)
        # Never more than half holes.
        for slab in slabs:
            assert 2 * len(there & set(slab.serials)) >= len(slab.serials) > 0


def test_growing_copies_each_row_a_few_times_into_few_slabs() -> None:
    views: list[View] = []
    slabs: list[Slab] = []
    copied = 0
    for serial in range(256):
        views.append(View(serial))
        slabs, more = settled(views, slabs, 16)
        copied += more
        assert len(slabs) <= len(views) / 8 + 5
    assert copied <= 10 * 256 * (1 + 4)
