"""Statements that read the first and the newest vectors of a camera, one crop of each track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, func, select

from service.catalog.models import crops, embeddings
from service.catalog.records import GalleryRecord

__all__ = ["CameraEnds", "camera_ends", "newest_crops"]

# How many crops of a camera are looked at for one that is of a track of its own.
LOOKED_AT = 16


@dataclass(frozen=True, slots=True)
class CameraEnds:
    """Vectors of one camera, (count, D) float32 each, in the order in which they were stored."""

    first: NDArray[np.float32]
    newest: NDArray[np.float32]


def newest_crops(connection: Connection, camera_rows: Sequence[int]) -> dict[int, int]:
    """The newest crop's row of each camera that has one; a look into an index for each."""
    found = {}
    for row in camera_rows:
        newest = connection.scalar(
            select(func.max(crops.c.crop_row)).where(crops.c.camera_row == row)
        )
        if newest is not None:
            found[row] = newest
    return found


def camera_ends(
    connection: Connection, gallery: GalleryRecord, camera_row: int, *, count: int
) -> CameraEnds | None:
    """``count`` crops of each end, none in both and no track twice; None when there are fewer."""
    first = _of_own_track(connection, gallery, camera_row, count=count, newest=False, taken=set())
    taken = {track for track, _ in first if track}
    newest = _of_own_track(connection, gallery, camera_row, count=count, newest=True, taken=taken)
    if len(first) < count or len(newest) < count or first[-1][1] >= newest[-1][1]:
        return None
    return CameraEnds(
        _vectors(connection, gallery, [row for _, row in first]),
        _vectors(connection, gallery, [row for _, row in reversed(newest)]),
    )


def _of_own_track(
    connection: Connection,
    gallery: GalleryRecord,
    camera_row: int,
    *,
    count: int,
    newest: bool,
    taken: set[str],
) -> list[tuple[str, int]]:
    """Tracks and rows from one end; a crop without a track is its own."""
    order = crops.c.crop_row.desc() if newest else crops.c.crop_row
    rows = connection.execute(
        select(crops.c.track_id, crops.c.crop_row)
        .join(embeddings, embeddings.c.crop_row == crops.c.crop_row)
        .where(crops.c.camera_row == camera_row, embeddings.c.model_row == gallery.model_row)
        .order_by(order)
        .limit(count * LOOKED_AT)
    )
    seen, found = set(taken), []
    for track, row in rows:
        if track and track in seen:
            continue
        seen.add(track)
        found.append((track, row))
        if len(found) == count:
            break
    return found


def _vectors(
    connection: Connection, gallery: GalleryRecord, rows: Sequence[int]
) -> NDArray[np.float32]:
    found = connection.execute(
        select(embeddings.c.vector)
        .where(embeddings.c.crop_row.in_(rows), embeddings.c.model_row == gallery.model_row)
        .order_by(embeddings.c.crop_row)
    ).scalars()
    return np.frombuffer(b"".join(found), "<f4").reshape(-1, gallery.dimension)
