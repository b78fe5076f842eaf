"""What tracks, cameras and times say of who is who, as far as the source knows and the run may use.

The rule by which they bind the clusters is that of :mod:`adapt.clustering.constraints`. A track id
is a camera's own, and trackers start counting anew: a track that pauses for longer than a person
stays is taken as two. A track of which the camera is unknown is of no use, for its id may stand for
as many people as there are cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adapt.clustering.constraints import Constraints
from resight.crops import CropRef
from resight.errors import InvalidArgument

__all__ = ["ApartCameras", "CropConstraints", "crop_constraints"]

ApartCameras = str | Sequence[tuple[str, str]]

_MICROSECONDS = 1e6


@dataclass(frozen=True)
class CropConstraints:
    """Constraints of N crops.

    Attributes:
        constraints: None where nothing is known that binds.
        notes: What was left out, for the run's warnings.
    """

    constraints: Constraints | None
    notes: tuple[str, ...]


def crop_constraints(
    crops: Sequence[CropRef],
    *,
    separate: bool,
    apart: ApartCameras = "none",
    apart_seconds: float = 2.0,
    track_gap_seconds: float = 300.0,
) -> CropConstraints:
    """Reads the constraints of ``crops``.

    Args:
        crops: In the order of the features.
        separate: Whether crops that cannot show one person are kept apart, too.
        apart: Cameras at which nobody can be seen at once: ``none``, ``all`` (no two views
            overlap), or pairs of their names.
        apart_seconds: What a person needs at least from one such camera to another.
        track_gap_seconds: Pause at which a track is taken as two.

    Raises:
        InvalidArgument: ``apart`` names a camera that no crop has.
    """
    names = sorted({crop.camera for crop in crops if crop.camera is not None})
    number = {name: code for code, name in enumerate(names)}
    cameras = np.array(
        [-1 if crop.camera is None else number[crop.camera] for crop in crops], dtype=np.int32
    )
    times = _times(crops)
    codes: dict[tuple[str, str], int] = {}
    tracks = np.full(len(crops), -1, dtype=np.int32)
    homeless = 0
    for row, crop in enumerate(crops):
        if crop.track is None:
            continue
        if crop.camera is None:
            homeless += 1
            continue
        tracks[row] = codes.setdefault((crop.camera, crop.track), len(codes))
    notes = []
    if homeless:
        notes.append(f"{homeless} crops have a track and no camera: their tracks are not used")
    tracks, paused = _split(tracks, times, round(track_gap_seconds * _MICROSECONDS))
    if paused:
        notes.append(f"{paused} tracks pause for more than {track_gap_seconds:g} s: taken apart")
    matrix = _matrix(apart, number) if separate else np.zeros((len(names), len(names)), np.bool_)
    if not codes and not matrix.any():
        notes.append("no crop has a track: tracklets have no effect")
        return CropConstraints(None, tuple(notes))
    if separate and (times < 0).any():
        notes.append(f"{(times < 0).sum()} crops have no time: nothing is kept apart from them")
    known = Constraints(
        tracks=tracks,
        cameras=cameras,
        times=times,
        apart=matrix,
        apart_within=round(apart_seconds * _MICROSECONDS),
        separate=separate,
    )
    return CropConstraints(known, tuple(notes))


def _times(crops: Sequence[CropRef]) -> NDArray[np.int64]:
    """Microseconds since the first crop, -1 unknown."""
    known = [crop.capture_time for crop in crops if crop.capture_time is not None]
    if not known:
        return np.full(len(crops), -1, dtype=np.int64)
    first = min(known)
    return np.array(
        [
            -1
            if crop.capture_time is None
            else round((crop.capture_time - first).total_seconds() * _MICROSECONDS)
            for crop in crops
        ],
        dtype=np.int64,
    )


def _split(
    tracks: NDArray[np.int32], times: NDArray[np.int64], gap: int
) -> tuple[NDArray[np.int32], int]:
    """Codes after cutting tracks where they pause for longer than ``gap``, and how many paused."""
    rows = np.flatnonzero(tracks >= 0)
    if not rows.size:
        return tracks, 0
    timeless = np.isin(tracks[rows], tracks[rows][times[rows] < 0])
    order = np.lexsort((times[rows], tracks[rows]))
    ordered = rows[order]
    starts = np.diff(tracks[ordered], prepend=-1) != 0
    pauses = ~starts & (np.diff(times[ordered], prepend=0) > gap) & ~timeless[order]
    cut = np.full_like(tracks, -1)
    cut[ordered] = np.cumsum(starts | pauses) - 1
    return cut, int(np.unique(tracks[ordered[pauses]]).size)


def _matrix(apart: ApartCameras, number: dict[str, int]) -> NDArray[np.bool_]:
    count = len(number)
    if apart == "none":
        return np.zeros((count, count), dtype=np.bool_)
    if apart == "all":
        return ~np.eye(count, dtype=np.bool_)
    if isinstance(apart, str):
        raise InvalidArgument(
            f"apart_cameras: is {apart!r}; give none, all, or pairs of cameras",
            field="apart_cameras",
        )
    matrix = np.zeros((count, count), dtype=np.bool_)
    for pair in apart:
        for name in pair:
            if name not in number:
                raise InvalidArgument(
                    f"apart_cameras: no crop is of camera {name!r}; there are "
                    f"{', '.join(number) or 'none'}",
                    field="apart_cameras",
                )
        first, second = (number[name] for name in pair)
        if first == second:
            raise InvalidArgument(
                f"apart_cameras: {pair[0]!r} cannot lie apart from itself", field="apart_cameras"
            )
        matrix[first, second] = matrix[second, first] = True
    return matrix
