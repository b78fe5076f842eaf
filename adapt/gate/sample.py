"""Which crops the gate looks at, and what is known of them.

Without tracks crops are drawn at random. With tracks, moments are: of each track that runs then,
two crops far apart in time (``adapt.export.pairs.choose_crops``), so that the agreement within
tracks can be measured on what was embedded. Either way the seed alone decides, over the crops in
the order of their paths; no name, which may hold an identity, plays a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.export.pairs import choose_crops
from adapt.export.sightings import Sightings, sightings_of
from resight.crops import CropRef

__all__ = ["Sample", "describe", "draw"]


@dataclass(frozen=True)
class Sample:
    """What is known of N crops.

    Attributes:
        sightings: Their cameras, tracks and times.
        cameras: (N,) int32 codes; None where a crop has no camera, or all have the same.
        names: Of the cameras, in the order of the codes.
        notes: What cannot be measured, and why.
    """

    sightings: Sightings
    cameras: NDArray[np.int32] | None
    names: tuple[str, ...]
    notes: tuple[str, ...]


def draw(crops: Sequence[CropRef], count: int, *, seed: int) -> list[CropRef]:
    """``count`` crops, or all there are, in an order as random as the draw."""
    listed = sorted(crops, key=lambda crop: crop.path)
    chosen = choose_crops(sightings_of(listed), count, seed=seed)
    return [listed[row] for row in np.random.default_rng(seed).permutation(chosen)]


def describe(crops: Sequence[CropRef]) -> Sample:
    """Codes cameras, tracks and times; says what is missing."""
    missing = sum(crop.camera is None for crop in crops)
    seen = sorted({crop.camera for crop in crops if crop.camera is not None})
    sightings = sightings_of(crops)
    cameras, notes = None, []
    if missing:
        notes.append(f"{missing} of {len(crops)} crops have no camera: nothing across cameras")
    elif len(seen) < 2:
        notes.append(f"all crops come from camera {seen[0]}: nothing across cameras")
    else:
        codes = {name: code for code, name in enumerate(seen)}
        cameras = np.array([codes[crop.camera or ""] for crop in crops], dtype=np.int32)
    if not any(crop.track is not None for crop in crops):
        notes.append("no crop has a track: agreement within tracks is not measured")
    return Sample(sightings, cameras, tuple(seen), tuple(notes))
