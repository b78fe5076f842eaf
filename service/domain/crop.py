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

__all__ = [
    "AttributeTerm",
    "Camera",
    "Crop",
    "CropFilter",
    "TimeRange",
    "new_camera",
    "new_crop",
]

MAX_DISPLAY_NAME = 200
MAX_TRACK_ID = 128
MAX_ZONE = 64


@dataclass(frozen=True, slots=True)
class Camera:
    """A registered camera. ``create_time`` is None until the catalog has stored it;
    ``retention_days`` where its crops are kept for another time than the others'.
    """

    camera_id: str
    display_name: str = ""
    zone: str = ""
    create_time: datetime | None = None
    retention_days: float | None = None


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


class AttributeTerm(NamedTuple):
    """A condition on one attribute: its value is one of ``values``, or anything when empty."""

    key: str
    values: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CropFilter:
    """Which crops may match; conditions are combined with AND. Nothing included means all.

    An empty zone or track names crops without one. Every included attribute term must match, no
    excluded one may.
    """

    include_camera_ids: Sequence[str] = ()
    exclude_camera_ids: Sequence[str] = ()
    capture_range: TimeRange = TimeRange()
    include_zones: Sequence[str] = ()
    exclude_zones: Sequence[str] = ()
    include_track_ids: Sequence[str] = ()
    exclude_track_ids: Sequence[str] = ()
    include_attributes: Sequence[AttributeTerm] = ()
    exclude_attributes: Sequence[AttributeTerm] = ()

    def checked(self, *, max_cameras: int, max_terms: int) -> CropFilter:
        """The filter with valid, sorted, distinct values and a checked time range.

        Lists are counted before anything in them is looked at: a million terms cost nothing.

        Raises:
            InvalidArgument: more than ``max_cameras`` cameras or ``max_terms`` zones, tracks or
                attribute values in a list, a bad name, an attribute key given twice, a bad range.
        """
        return CropFilter(
            _camera_ids(self.include_camera_ids, "filter.include_camera_ids", max_cameras),
            _camera_ids(self.exclude_camera_ids, "filter.exclude_camera_ids", max_cameras),
            self.capture_range.checked(),
            _texts(self.include_zones, "filter.include_zones", MAX_ZONE, max_terms),
            _texts(self.exclude_zones, "filter.exclude_zones", MAX_ZONE, max_terms),
            _texts(self.include_track_ids, "filter.include_track_ids", MAX_TRACK_ID, max_terms),
            _texts(self.exclude_track_ids, "filter.exclude_track_ids", MAX_TRACK_ID, max_terms),
            _terms(self.include_attributes, "filter.include_attributes", max_terms),
            _terms(self.exclude_attributes, "filter.exclude_attributes", max_terms),
        )


def _camera_ids(values: Sequence[str], name: str, limit: int) -> tuple[str, ...]:
    if len(values) > limit:
        raise InvalidArgument(
            f"{name} has {len(values)} ids; send at most {limit} (limits.max_filter_cameras)",
            field=name,
        )
    return tuple(sorted({names.camera_id(value, field=name) for value in values}))


def _texts(values: Sequence[str], name: str, length: int, limit: int) -> tuple[str, ...]:
    _refuse_many(len(values), name, limit)
    return tuple(sorted({names.printable(value, field=name, limit=length) for value in values}))


def _terms(values: Sequence[AttributeTerm], name: str, limit: int) -> tuple[AttributeTerm, ...]:
    _refuse_many(len(values), name, limit)
    _refuse_many(sum(max(1, len(term.values)) for term in values), name, limit)
    found: dict[str, AttributeTerm] = {}
    for term in values:
        key = names.attribute_key(term.key, field=f"{name}.key")
        if key in found:
            raise InvalidArgument(
                f"{name} names the key {key!r} twice; put its values into one term", field=name
            )
        checked = names.attribute_values(term.values, field=f"{name}.values")
        found[key] = AttributeTerm(key, checked)
    return tuple(found[key] for key in sorted(found))


def _refuse_many(count: int, name: str, limit: int) -> None:
    if count > limit:
        raise InvalidArgument(
            f"{name} has {count} terms; send at most {limit} (limits.max_filter_terms)", field=name
        )


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
