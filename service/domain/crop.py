"""Crops, their cameras, and the filters that choose among them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from resight.errors import InvalidArgument
from service.domain import names
from service.domain.instant import CaptureTimeRule, from_micros, to_micros, utc

__all__ = ["Camera", "Crop", "CropFilter", "TimeRange", "new_camera", "new_crop"]

MAX_DISPLAY_NAME = 200
MAX_TRACK_ID = 128
MAX_ZONE = 64


@dataclass(frozen=True, slots=True)
class Camera:
    """A registered camera. ``create_time`` is None until the catalog has stored it."""

    camera_id: str
    display_name: str = ""
    zone: str = ""
    create_time: datetime | None = None


class Crop(NamedTuple):
    """One sighting of one person, without identity.

    A tuple with its times as microseconds since 1970, because a full ranking makes thousands at
    once. ``sha256`` is the 32-byte digest of the encoded image; ``create_micros`` is None until
    stored.
    """

    crop_id: UUID
    camera_id: str
    capture_micros: int
    sha256: bytes
    track_id: str = ""
    zone: str = ""
    attributes: Mapping[str, str] = MappingProxyType({})
    create_micros: int | None = None

    @property
    def capture_time(self) -> datetime:
        """When the camera saw it, aware UTC."""
        return from_micros(self.capture_micros)

    @property
    def create_time(self) -> datetime | None:
        """When it was stored, aware UTC; None until then."""
        return None if self.create_micros is None else from_micros(self.create_micros)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Half-open ``start_time <= t < end_time``; None leaves a side open."""

    start_time: datetime | None = None
    end_time: datetime | None = None

    def checked(self, *, field: str = "filter.capture_range") -> TimeRange:
        """The range in UTC.

        Raises:
            InvalidArgument: a naive side, or the range holds no instant (reversed or empty).
        """
        start, end = (
            None if value is None else utc(value, field=f"{field}.{name}")
            for name, value in (("start_time", self.start_time), ("end_time", self.end_time))
        )
        if start is not None and end is not None and start >= end:
            wrong = "equals" if start == end else "is after"
            raise InvalidArgument(
                f"{field}.start_time {start.isoformat()} {wrong} end_time {end.isoformat()}, so no "
                "crop can match; the range is half-open, send start_time < end_time",
                field=field,
            )
        return TimeRange(start, end)


@dataclass(frozen=True, slots=True)
class CropFilter:
    """Which crops may match; conditions are combined with AND. No cameras included means all."""

    include_camera_ids: Sequence[str] = ()
    exclude_camera_ids: Sequence[str] = ()
    capture_range: TimeRange = TimeRange()

    def checked(self, *, max_cameras: int) -> CropFilter:
        """The filter with valid, sorted, distinct camera ids and a checked time range."""
        return CropFilter(
            _camera_ids(self.include_camera_ids, "filter.include_camera_ids", max_cameras),
            _camera_ids(self.exclude_camera_ids, "filter.exclude_camera_ids", max_cameras),
            self.capture_range.checked(),
        )


def _camera_ids(values: Sequence[str], name: str, limit: int) -> tuple[str, ...]:
    if len(values) > limit:
        raise InvalidArgument(f"{name} has {len(values)} ids; send at most {limit}", field=name)
    return tuple(sorted({names.camera_id(value, field=name) for value in values}))


def new_camera(camera_id: str, *, display_name: str = "", zone: str = "") -> Camera:
    """A checked camera, not yet stored."""
    return Camera(
        camera_id=names.camera_id(camera_id, field="camera.camera_id"),
        display_name=names.printable(
            display_name, field="camera.display_name", limit=MAX_DISPLAY_NAME
        ),
        zone=names.printable(zone, field="camera.zone", limit=MAX_ZONE),
    )


def new_crop(
    crop_id: UUID,
    *,
    camera_id: str,
    capture_time: datetime | None,
    image: bytes,
    track_id: str,
    zone: str,
    attributes: Mapping[str, str],
    rule: CaptureTimeRule,
    now: datetime,
) -> Crop:
    """A checked crop, not yet stored; its digest is taken from ``image``."""
    return Crop(
        crop_id=crop_id,
        camera_id=names.camera_id(camera_id, field="crop.camera_id"),
        capture_micros=to_micros(rule.check(capture_time, now=now, field="crop.capture_time")),
        sha256=hashlib.sha256(image).digest(),
        track_id=names.printable(track_id, field="crop.track_id", limit=MAX_TRACK_ID),
        zone=names.printable(zone, field="crop.zone", limit=MAX_ZONE),
        attributes=names.attributes(attributes, field="crop.attributes"),
    )
