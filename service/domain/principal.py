"""Who asks, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, get_args

from resight.errors import PermissionDenied
from service.domain.crop import Crop, CropFilter, TimeRange
from service.domain.instant import from_micros

__all__ = ["ANY_TIME", "EVERYTHING", "LOCAL", "SCOPES", "Principal", "PrincipalKind", "Scope"]

Scope = Literal["search", "ingest", "models", "admin", "audit"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
ANY_TIME = TimeRange()
# local: whoever reaches a service without authentication, and the service itself.
PrincipalKind = Literal["local", "key", "jwt"]


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody known, with what limits them; None is no limit.

    Attributes:
        name: As in the audit: ``local``, ``key:<key id>`` or ``jwt:<subject>``.
        kind: How they are known.
        scopes: What they may do.
        galleries: The galleries they may name.
        cameras: The cameras whose crops they may see or ingest.
        capture_range: When crops that they may see were captured.
        requests_per_minute, requests_per_day: Their own bounds instead of the settings'.
        expire_time: When what they showed ends, and so must whatever they hand on.
    """

    name: str
    kind: PrincipalKind
    scopes: frozenset[Scope]
    galleries: frozenset[str] | None = None
    cameras: frozenset[str] | None = None
    capture_range: TimeRange = ANY_TIME
    requests_per_minute: int | None = None
    requests_per_day: int | None = None
    expire_time: datetime | None = None

    @property
    def is_limited(self) -> bool:
        """Whether some crops of a gallery are hidden."""
        return self.cameras is not None or self.capture_range != ANY_TIME

    def require_gallery(self, name: str) -> None:
        """Refuse a gallery that is not among theirs, whether it exists or not.

        Raises:
            PermissionDenied: it is not.
        """
        if self.galleries is not None and name not in self.galleries:
            raise PermissionDenied(
                f"{self.name} may not use gallery {name!r}",
                field="gallery",
                reason="GALLERY_NOT_ALLOWED",
            )

    def require_camera(self, camera_id: str, *, field: str) -> None:
        """Refuse a camera that is not among theirs, whether it is registered or not.

        Raises:
            PermissionDenied: it is not.
        """
        if self.cameras is not None and camera_id not in self.cameras:
            raise PermissionDenied(
                f"{self.name} may not use camera {camera_id!r}",
                field=field,
                reason="CAMERA_NOT_ALLOWED",
            )

    def sees(self, crop: Crop) -> bool:
        """Whether a crop is within the limits."""
        captured = from_micros(crop.capture_micros)
        start, end = self.capture_range.start_time, self.capture_range.end_time
        return (
            (self.cameras is None or crop.camera_id in self.cameras)
            and (start is None or captured >= start)
            and (end is None or captured < end)
        )

    def narrowed(self, chosen: CropFilter) -> CropFilter:
        """The filter, with the limits added.

        Raises:
            PermissionDenied: a camera is named that is not among theirs, or nothing is left.
        """
        if not self.is_limited:
            return chosen
        cameras = chosen.include_camera_ids
        if self.cameras is not None:
            for name in cameras:
                self.require_camera(name, field="filter.include_camera_ids")
            # Excluding one would tell whether it is registered.
            for name in chosen.exclude_camera_ids:
                self.require_camera(name, field="filter.exclude_camera_ids")
            cameras = cameras or tuple(sorted(self.cameras))
        asked, own = chosen.capture_range, self.capture_range
        starts = [time for time in (asked.start_time, own.start_time) if time is not None]
        ends = [time for time in (asked.end_time, own.end_time) if time is not None]
        start, end = max(starts, default=None), min(ends, default=None)
        if start is not None and end is not None and start >= end:
            raise PermissionDenied(
                f"{self.name} may not see crops of that time",
                field="filter.start_time",
                reason="TIME_NOT_ALLOWED",
            )
        return replace(chosen, include_camera_ids=cameras, capture_range=TimeRange(start, end))


EVERYTHING: frozenset[Scope] = frozenset(SCOPES)
LOCAL = Principal("local", "local", EVERYTHING)
