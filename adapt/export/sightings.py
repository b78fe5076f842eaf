"""What is known of a run's crops without labels: camera, track and time, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resight.crops import CropRef

__all__ = ["UNKNOWN", "Sightings", "sightings_of"]

UNKNOWN = -1


@dataclass(frozen=True)
class Sightings:
    """N crops.

    Attributes:
        cameras: (N,) int64 codes; -1 unknown.
        tracks: (N,) int64 codes, one a track of a camera; -1 unknown.
        times: (N,) float64 seconds; NaN unknown.
    """

    cameras: NDArray[np.int64]
    tracks: NDArray[np.int64]
    times: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.tracks)

    def take(self, indices: NDArray[np.int64]) -> Sightings:
        """Those of some crops."""
        return Sightings(self.cameras[indices], self.tracks[indices], self.times[indices])

    def groups(self) -> NDArray[np.int64]:
        """(N,) codes: the track where it is known, the crop itself otherwise."""
        alone = np.arange(len(self)) + self.tracks.max(initial=0) + 1
        return np.where(self.tracks == UNKNOWN, alone, self.tracks)


def sightings_of(crops: Sequence[CropRef]) -> Sightings:
    """Codes cameras and tracks; a track is one camera's, whatever its name elsewhere."""
    cameras: dict[str, int] = {}
    tracks: dict[tuple[int, str], int] = {}
    rows = np.full((2, len(crops)), UNKNOWN, np.int64)
    times = np.full(len(crops), np.nan)
    for row, crop in enumerate(crops):
        if crop.camera is not None:
            rows[0, row] = cameras.setdefault(crop.camera, len(cameras))
        if crop.track is not None:
            rows[1, row] = tracks.setdefault((int(rows[0, row]), crop.track), len(tracks))
        if crop.capture_time is not None:
            times[row] = crop.capture_time.timestamp()
    return Sightings(rows[0], rows[1], times)
