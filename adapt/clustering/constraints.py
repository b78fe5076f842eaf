"""What is known of crops before they are looked at: tracks, cameras, times.

A **unit** is a track, or a crop without one. All crops of a unit show one person (must-link). Two
units show different persons (cannot-link) if

- both are tracks of one camera and their times overlap: the camera saw both at once; or
- their cameras lie apart (``apart``) and their times overlap, or come within ``apart_within`` of
  each other: nobody is at two such places at once.

The time of a unit is the closed interval from its first to its last crop. A unit of which any time
or the camera is unknown conflicts with nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.kernel import kernel
from resight.errors import InvalidArgument

__all__ = ["Constraints", "Units", "conflict"]


class Units(NamedTuple):
    """Tracks and lone crops.

    Attributes:
        of: int32 (N,): the unit of each crop; units are numbered by their first crop.
        sizes: int32 (U,): crops of each.
        cameras: int32 (U,), -1 unknown.
        starts, ends: int64 (U,), microseconds, -1 unknown.
        tracked: bool (U,): a track, of one crop or more.
        apart: bool (C, C).
        within: microseconds.
    """

    of: NDArray[np.int32]
    sizes: NDArray[np.int32]
    cameras: NDArray[np.int32]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    tracked: NDArray[np.bool_]
    apart: NDArray[np.bool_]
    within: int


@dataclass(frozen=True)
class Constraints:
    """Tracks, cameras and times of N crops.

    Attributes:
        tracks: int32 (N,): code of the crop's track, unique over all cameras; -1 without one.
        cameras: int32 (N,): code of its camera, -1 unknown.
        times: int64 (N,): when it was seen, microseconds, -1 unknown.
        apart: bool (C, C), symmetric: cameras at which nobody can be seen at once.
        apart_within: microseconds that a person needs at least between two such cameras.
        separate: whether cannot-links are observed; must-links always are.

    Raises:
        InvalidArgument: arrays of different lengths, a track of several cameras, a camera without
            a row in ``apart``, or ``apart`` not symmetric with a free diagonal.
    """

    tracks: NDArray[np.int32]
    cameras: NDArray[np.int32]
    times: NDArray[np.int64]
    apart: NDArray[np.bool_]
    apart_within: int = 0
    separate: bool = True

    def __post_init__(self) -> None:
        for name in ("cameras", "times"):
            if getattr(self, name).shape != self.tracks.shape:
                raise InvalidArgument(
                    f"{name}: has shape {getattr(self, name).shape}; give one for each of the "
                    f"{self.tracks.size} crops",
                    field=name,
                )
        cameras = max(int(self.cameras.max(initial=-1)) + 1, len(self.apart))
        if self.apart.shape != (cameras, cameras):
            raise InvalidArgument(
                f"apart: has shape {self.apart.shape}; there are {cameras} cameras", field="apart"
            )
        if not np.array_equal(self.apart, self.apart.T) or self.apart.diagonal().any():
            raise InvalidArgument(
                "apart: must be symmetric, and no camera lies apart from itself", field="apart"
            )
        mixed = np.flatnonzero(self.units.cameras[self.units.of] != self.cameras)
        if mixed.size:
            raise InvalidArgument(
                f"tracks: track {self.tracks[mixed[0]]} has crops of several cameras; number the "
                "tracks of each camera apart",
                field="tracks",
            )

    def __len__(self) -> int:
        return int(self.tracks.size)

    @cached_property
    def units(self) -> Units:
        """The units of these crops."""
        count = self.tracks.size
        # Lone crops have keys of their own, below those of tracks.
        keys = np.where(self.tracks >= 0, self.tracks.astype(np.int64), -1 - np.arange(count))
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        number = np.empty(first.size, dtype=np.int32)
        number[np.argsort(first)] = np.arange(first.size, dtype=np.int32)
        of = number[inverse]
        first = np.sort(first)
        starts, ends = self.times[first].astype(np.int64), self.times[first].astype(np.int64)
        np.minimum.at(starts, of, self.times)
        np.maximum.at(ends, of, self.times)
        if not self.separate:  # an unknown time conflicts with none
            starts[:] = -1
        ends[starts < 0] = -1
        return Units(
            of=of,
            sizes=np.bincount(of, minlength=first.size).astype(np.int32),
            cameras=self.cameras[first].astype(np.int32),
            starts=starts,
            ends=ends,
            tracked=self.tracks[first] >= 0,
            apart=np.ascontiguousarray(self.apart, dtype=np.bool_),
            within=self.apart_within,
        )


@kernel
def conflict(u: int, v: int, units: Units) -> bool:
    """Compiled: whether units ``u`` and ``v`` show different persons."""
    if u == v or units.starts[u] < 0 or units.starts[v] < 0:
        return False
    here = units.cameras[u]
    there = units.cameras[v]
    if here < 0 or there < 0:
        return False
    slack = 0
    if here == there:
        if not (units.tracked[u] and units.tracked[v]):
            return False
    elif units.apart[here, there]:
        slack = units.within
    else:
        return False
    return bool(
        units.starts[u] <= units.ends[v] + slack and units.starts[v] <= units.ends[u] + slack
    )
