"""Statements that read the crops a run may see, in the order in which they were stored.

Rows are numbered under the gallery's lock, which is held to the commit, so within a gallery a
larger row was stored later, on every database, and a reader that has seen a row will never find a
smaller one appear.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    func,
    select,
    type_coerce,
)

from service.catalog.models import cameras, crops
from service.domain.crop import Crop
from service.domain.sampling import Sample

__all__ = ["Window", "WindowCrop", "chosen_crops", "counts_by_camera", "next_crops", "sampled_rows"]

SAMPLE_BLOCK = 50_000
MAX_IN = 10_000


@dataclass(frozen=True, slots=True)
class Window:
    """Crops ``since_row < crop_row <= until_row`` of a gallery; None means every camera."""

    gallery_row: int
    since_row: int
    until_row: int
    camera_rows: Collection[int] | None = None


@dataclass(frozen=True, slots=True)
class WindowCrop:
    """A crop, its place in the order, and where its image lies. Its attributes are not read."""

    crop_row: int
    crop: Crop
    blob_id: UUID


def counts_by_camera(connection: Connection, window: Window) -> dict[int, int]:
    """How many crops each of the window's cameras has in it, by camera row."""
    found: dict[int, int] = {}
    wanted = sorted(window.camera_rows or ())
    for start in range(0, len(wanted), MAX_IN):
        part = crops.c.camera_row.in_(wanted[start : start + MAX_IN])
        statement = select(crops.c.camera_row, func.count().label("crops"))
        statement = statement.where(part, *_between(window)).group_by(crops.c.camera_row)
        rows = connection.execute(statement)
        found.update((row.camera_row, row.crops) for row in rows)
    return found


def next_crops(
    connection: Connection, window: Window, *, after: int, limit: int
) -> list[WindowCrop]:
    """The next crops of the window after a row."""
    statement = _inside(_whole(), window).where(crops.c.crop_row > after)
    rows = connection.execute(statement.order_by(crops.c.crop_row).limit(limit))
    return [_window_crop(row) for row in rows]


def chosen_crops(connection: Connection, rows: Sequence[int]) -> list[WindowCrop]:
    """The crops at these rows that still exist, in order."""
    statement = _whole().where(crops.c.crop_row.in_(rows)).order_by(crops.c.crop_row)
    return [_window_crop(row) for row in connection.execute(statement)]


def sampled_rows(
    connection: Connection, window: Window, *, size: int, seed: int
) -> NDArray[np.int64]:
    """The rows of a sample of the window: (min(size, crops),) int64, ascending."""
    sample = Sample(size, seed)
    for block in _row_blocks(connection, window):
        sample.offer(block)
    return sample.rows()


def _row_blocks(connection: Connection, window: Window) -> Iterator[NDArray[np.int64]]:
    newest = window.since_row
    while True:
        statement = _inside(select(crops.c.crop_row), window).where(crops.c.crop_row > newest)
        found = connection.execute(statement.order_by(crops.c.crop_row).limit(SAMPLE_BLOCK))
        block = np.fromiter(found.scalars(), dtype=np.int64)
        if not len(block):
            return
        newest = int(block[-1])
        yield block


def _inside(statement: Select[Any], window: Window) -> Select[Any]:
    """The statement on the window's crops, so put that an index gives them in order.

    A camera is of one gallery, so one camera needs no gallery. Of several cameras no index gives
    the rows in order, and a planner that took it all the same (hence the sum) would sort the whole
    window for every block.
    """
    inside = statement.where(*_between(window))
    if window.camera_rows is not None and len(window.camera_rows) == 1:
        return inside.where(crops.c.camera_row == next(iter(window.camera_rows)))
    inside = inside.where(crops.c.gallery_row == window.gallery_row)
    if window.camera_rows is None:
        return inside
    return inside.where((crops.c.camera_row + 0).in_(sorted(window.camera_rows)))


def _between(window: Window) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return crops.c.crop_row > window.since_row, crops.c.crop_row <= window.until_row


def _whole() -> Select[Any]:
    return select(
        crops.c.crop_row,
        crops.c.crop_id,
        cameras.c.camera_id,
        type_coerce(crops.c.capture_time, BigInteger).label("capture_micros"),
        crops.c.sha256,
        crops.c.track_id,
        crops.c.zone,
        type_coerce(crops.c.create_time, BigInteger).label("create_micros"),
        crops.c.blob_id,
    ).join(cameras, cameras.c.camera_row == crops.c.camera_row)


def _window_crop(row: Any) -> WindowCrop:
    crop = Crop(
        crop_id=row.crop_id,
        camera_id=row.camera_id,
        capture_micros=row.capture_micros,
        sha256=bytes(row.sha256),
        track_id=row.track_id,
        zone=row.zone,
        create_micros=row.create_micros,
    )
    return WindowCrop(row.crop_row, crop, row.blob_id)
