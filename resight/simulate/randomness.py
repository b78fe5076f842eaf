"""Independent random streams, one per thing drawn, so that no order of work changes a pixel."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["Purpose", "stream"]


class Purpose(IntEnum):
    """What a stream is for; part of its key."""

    PEOPLE = 1
    CAMERA = 2
    SCENE = 3
    SCHEDULE = 4
    TRACK = 5
    CROP = 6
    DISTRACTOR = 7
    QUERY = 8


def stream(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """Return the generator of ``(seed, purpose, key)``; equal keys give equal streams.

    Args:
        seed: Seed of the simulation, at least 0.
        purpose: What the numbers are for.
        key: Numbers of the thing drawn (identity, camera, crop), each at least 0.
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, purpose, *key])))
