"""What of a gallery the caller may see. Whatever shows crops, counts them or takes them in comes by
here; an unlimited caller passes at no cost.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

from resight.errors import PermissionDenied
from service import call
from service.application import row_filters
from service.application.gallery import Gallery
from service.domain.crop import Crop, CropFilter
from service.domain.ports import CameraSpan, RowFilter

__all__ = [
    "narrowed",
    "require_camera",
    "require_own",
    "require_unlimited",
    "row_filter",
    "sees",
    "visible_cameras",
]


def narrowed(chosen: CropFilter) -> CropFilter:
    """The filter with the caller's limits added; page tokens are bound to it.

    Raises:
        PermissionDenied: it names what the caller may not see.
    """
    return call.current().known.narrowed(chosen)


def row_filter(
    gallery: Gallery,
    chosen: CropFilter,
    *,
    exclude_ids: Iterable[UUID] = (),
    exclude_spans: Sequence[CameraSpan] = (),
) -> RowFilter:
    """A narrowed filter in terms of the index. The caller's cameras that are not registered here,
    or not yet, have no crops; when none is, nothing matches.

    Raises:
        NotFound: it names a camera that was never registered.
    """
    cameras = call.current().known.cameras
    if cameras is None or set(chosen.include_camera_ids) != cameras:
        return row_filters.row_filter(
            gallery, chosen, exclude_ids=exclude_ids, exclude_spans=exclude_spans
        )
    rows = row_filters.row_filter(
        gallery,
        replace(chosen, include_camera_ids=()),
        exclude_ids=exclude_ids,
        exclude_spans=exclude_spans,
    )
    registered = visible_cameras(gallery)
    own = row_filters.camera_rows(gallery, registered or (), "filter.include_camera_ids")
    return replace(rows, include_cameras=own)


def visible_cameras(gallery: Gallery) -> list[str] | None:
    """The registered cameras that the caller is limited to; None for one who is not."""
    cameras = call.current().known.cameras
    return None if cameras is None else sorted(cameras & gallery.cameras.keys())


def sees(crop: Crop) -> bool:
    """Whether the caller may see a crop."""
    principal = call.current().known
    return not principal.is_limited or principal.sees(crop)


def require_camera(camera_id: str, *, field: str) -> None:
    """Refuse a camera that is not among the caller's, registered or not.

    Raises:
        PermissionDenied: it is not (``CAMERA_NOT_ALLOWED``).
    """
    call.current().known.require_camera(camera_id, field=field)


def require_own(crop: Crop) -> None:
    """Refuse to take in what the caller might not see.

    Raises:
        PermissionDenied: of another camera or time (``CAMERA_NOT_ALLOWED``,
            ``TIME_NOT_ALLOWED``).
    """
    require_camera(crop.camera_id, field="crop.camera_id")
    if not sees(crop):
        raise PermissionDenied(
            f"{call.current().known.name} may not send crops captured then",
            field="crop.capture_time",
            reason="TIME_NOT_ALLOWED",
        )


def require_unlimited(what: str) -> None:
    """Refuse a caller who does not see every crop of the gallery: what they decide is about all.

    Raises:
        PermissionDenied: they are limited to cameras or times.
    """
    principal = call.current().known
    if principal.is_limited:
        raise PermissionDenied(
            f"{principal.name} is limited to some cameras or times, and {what} concerns all of "
            "the gallery; use a key without such limits",
            field="authorization",
            reason="LIMITED_CALLER",
        )
