"""Statements that read when and where crops were captured, and in which track."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from sqlalchemy import BigInteger, Connection, select, type_coerce

from service.catalog.models import cameras, crops

__all__ = ["TrackedCrop", "newest_crops"]


class TrackedCrop(NamedTuple):
    """A crop's camera, capture time in microseconds, and track, which may be empty."""

    crop_id: UUID
    camera_id: str
    micros: int
    track_id: str


def newest_crops(connection: Connection, gallery_row: int, *, limit: int) -> list[TrackedCrop]:
    """The crops of the latest capture times, latest first."""
    statement = (
        select(
            crops.c.crop_id,
            cameras.c.camera_id,
            type_coerce(crops.c.capture_time, BigInteger),
            crops.c.track_id,
        )
        .join(cameras, cameras.c.camera_row == crops.c.camera_row)
        .where(crops.c.gallery_row == gallery_row)
        .order_by(crops.c.capture_time.desc(), crops.c.crop_id)
        .limit(limit)
    )
    return [TrackedCrop(*row) for row in connection.execute(statement)]
