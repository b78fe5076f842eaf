"""Which crops are stored already, asked for many at once."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import Connection, select

from service.catalog.models import crops

__all__ = ["CropIdentity", "stored_crops"]


class CropIdentity(NamedTuple):
    """What makes two crops the same; the time is aware, the digest SHA-256."""

    gallery_row: int
    camera_row: int
    capture_time: datetime
    track_id: str
    sha256: bytes


def stored_crops(
    connection: Connection, wanted: Collection[CropIdentity]
) -> dict[CropIdentity, UUID]:
    """The ids of those that are stored."""
    rows = connection.execute(
        select(
            crops.c.gallery_row,
            crops.c.camera_row,
            crops.c.capture_time,
            crops.c.track_id,
            crops.c.sha256,
            crops.c.crop_id,
        ).where(
            crops.c.gallery_row.in_({item.gallery_row for item in wanted}),
            crops.c.sha256.in_({item.sha256 for item in wanted}),
        )
    )
    # One image may have been seen at many times, so the digest alone finds more than was asked.
    asked = set(wanted)
    found = ((CropIdentity(*row[:4], bytes(row.sha256)), row.crop_id) for row in rows)
    return {identity: crop_id for identity, crop_id in found if identity in asked}
