"""Which camera saw each crop, as far as the source knows and the run may use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.crops import CropRef

__all__ = ["CameraCodes", "camera_codes"]


@dataclass(frozen=True)
class CameraCodes:
    """Cameras of N crops as small integers.

    Attributes:
        codes: (N,) int32 in order of ``names``, or None when the run is camera-free.
        names: The cameras seen.
        notes: Why cameras are not used, when they are not (for the run's warnings).
    """

    codes: NDArray[np.int32] | None
    names: tuple[str, ...]
    notes: tuple[str, ...]


def camera_codes(crops: Sequence[CropRef], *, ignore: bool) -> CameraCodes:
    """Codes the cameras of ``crops``; camera-free when told so or when any crop has none.

    A crop without camera among crops with one would be a partner "from another camera" of every
    crop, its own camera's included, so a partly labelled source is treated as unlabelled.
    """
    names = tuple(sorted({crop.camera for crop in crops if crop.camera is not None}))
    missing = sum(crop.camera is None for crop in crops)
    if ignore:
        return CameraCodes(None, names, ())
    if missing:
        note = f"{missing} of {len(crops)} crops have no camera: the run is camera-free"
        return CameraCodes(None, names, (note,))
    order = {name: code for code, name in enumerate(names)}
    codes = np.array([order[crop.camera or ""] for crop in crops], dtype=np.int32)
    notes = ("all crops come from one camera: nothing is learnt across cameras",)
    return CameraCodes(codes, names, notes if len(names) == 1 else ())
