"""Whether crops of the query's own camera may match: the rule by which re-ID is judged."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from resight.errors import InvalidArgument
from service.domain import names
from service.domain.instant import to_micros, utc

__all__ = ["OwnCamera", "OwnCameraRule", "Sighting"]

MAX_WINDOW = timedelta(days=36_525)


class OwnCamera(Enum):
    """What becomes of crops of the query's own camera."""

    ANY = "any"
    EXCLUDE = "exclude"
    EXCLUDE_WITHIN = "exclude_within"


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where and when a query was seen; both unset for a stored crop, which knows itself."""

    camera_id: str = ""
    capture_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class OwnCameraRule:
    """The switch, its window (inclusive, EXCLUDE_WITHIN alone), and the sighting it is about."""

    mode: OwnCamera = OwnCamera.ANY
    window: timedelta | None = None
    sighting: Sighting = Sighting()

    def checked(self, *, stored: bool) -> OwnCameraRule:
        """The rule with nothing missing and nothing without effect.

        Args:
            stored: Whether the query is a stored crop.

        Raises:
            InvalidArgument: a field is missing, or given where it would do nothing.
        """
        within = self.mode is OwnCamera.EXCLUDE_WITHIN
        if within:
            _check_window(self.window)
        elif self.window is not None:
            raise _without_effect("own_camera_window", "own_camera is EXCLUDE_WITHIN")
        camera, time = self.sighting.camera_id, self.sighting.capture_time
        if stored or self.mode is OwnCamera.ANY:
            needed = (
                "the query is an image or an embedding; a stored crop has its own"
                if stored
                else "own_camera is EXCLUDE or EXCLUDE_WITHIN"
            )
            if camera:
                raise _without_effect("query_camera_id", needed)
            if time is not None:
                raise _without_effect("query_capture_time", needed)
            return self
        camera = names.camera_id(camera, field="query_camera_id")
        if not within:
            return OwnCameraRule(self.mode, None, Sighting(camera))
        if time is None:
            raise InvalidArgument(
                "query_capture_time is missing; send when the query was seen, or use EXCLUDE",
                field="query_capture_time",
            )
        seen = Sighting(camera, utc(time, field="query_capture_time"))
        return OwnCameraRule(self.mode, self.window, seen)

    def span_micros(self, seen: Sighting) -> tuple[int, int]:
        """The half-open span of capture times that the rule takes from the camera of ``seen``."""
        if self.window is None or seen.capture_time is None:
            return -(2**63), 2**63 - 1
        time, window = to_micros(seen.capture_time), self.window // timedelta(microseconds=1)
        return time - window, time + window + 1


def _check_window(window: timedelta | None) -> None:
    if window is None or not timedelta(0) < window <= MAX_WINDOW:
        raise InvalidArgument(
            "own_camera_window must be above zero and at most 100 years with EXCLUDE_WITHIN "
            f"(found {window})",
            field="own_camera_window",
        )


def _without_effect(field: str, when: str) -> InvalidArgument:
    return InvalidArgument(f"{field} has an effect only when {when}; remove it", field=field)
