"""Filters of a gallery's crops in terms of its index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from service.application.gallery import Gallery
from service.domain.crop import CropFilter
from service.domain.instant import to_micros
from service.domain.ports import CameraSpan, RowFilter

__all__ = ["camera_rows", "row_filter"]


def row_filter(
    gallery: Gallery,
    chosen: CropFilter,
    *,
    exclude_ids: Iterable[UUID] = (),
    exclude_spans: Sequence[CameraSpan] = (),
) -> RowFilter:
    """A checked filter in terms of the index.

    Raises:
        NotFound: it names a camera that was never registered.
    """
    include = camera_rows(gallery, chosen.include_camera_ids, "filter.include_camera_ids")
    exclude = camera_rows(gallery, chosen.exclude_camera_ids, "filter.exclude_camera_ids")
    return RowFilter(
        include_cameras=include or None,
        exclude_cameras=exclude,
        start=_micros(chosen.capture_range.start_time),
        end=_micros(chosen.capture_range.end_time),
        exclude_ids=frozenset(exclude_ids),
        include_zones=frozenset(chosen.include_zones) or None,
        exclude_zones=frozenset(chosen.exclude_zones),
        include_tracks=frozenset(chosen.include_track_ids) or None,
        exclude_tracks=frozenset(chosen.exclude_track_ids),
        include_attributes=chosen.include_attributes,
        exclude_attributes=chosen.exclude_attributes,
        exclude_spans=exclude_spans,
    )


def camera_rows(gallery: Gallery, camera_ids: Iterable[str], field: str) -> frozenset[int]:
    """The keys of these cameras.

    Raises:
        NotFound: one was never registered.
    """
    return frozenset(gallery.camera(name, field=field).camera_row for name in camera_ids)


def _micros(value: datetime | None) -> int | None:
    return None if value is None else to_micros(value)
