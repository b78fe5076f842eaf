"""Instants: aware UTC datetimes outside, whole microseconds since 1970 inside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from resight.errors import InvalidArgument

__all__ = ["CaptureTimeRule", "from_micros", "to_micros", "utc"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(value: datetime) -> int:
    """Microseconds since 1970-01-01T00:00:00Z of an aware datetime; exact."""
    return (value - _EPOCH) // _MICROSECOND


def from_micros(value: int) -> datetime:
    """The aware UTC datetime of a number of microseconds since 1970-01-01T00:00:00Z."""
    return _EPOCH + timedelta(microseconds=value)


def utc(value: datetime, *, field: str) -> datetime:
    """The same instant in UTC.

    Raises:
        InvalidArgument: the datetime is naive, or its offset moves it out of years 1 to 9999.
    """
    if value.tzinfo is None:
        raise InvalidArgument(
            f"{field} {value.isoformat()} has no UTC offset; append Z for UTC", field=field
        )
    try:
        return value.astimezone(UTC)
    except OverflowError as error:
        raise InvalidArgument(
            f"{field} {value.isoformat()} is out of range", field=field
        ) from error


@dataclass(frozen=True, slots=True)
class CaptureTimeRule:
    """Which capture times can be true.

    Cameras whose clock was never set report 1970 and a few minutes; such times would be found by
    no sensible time range, so they are refused where they can still be mended.
    """

    earliest: datetime
    max_ahead: timedelta

    def check(self, value: datetime | None, *, now: datetime, field: str) -> datetime:
        """The capture time in UTC.

        Raises:
            InvalidArgument: missing, naive, before ``earliest`` or too far ahead of ``now``.
        """
        if value is None:
            raise InvalidArgument(
                f"{field} is missing; send the UTC time at which the camera saw the crop",
                field=field,
            )
        instant = utc(value, field=field)
        if instant < self.earliest:
            raise InvalidArgument(
                f"{field} {instant.isoformat()} is before {self.earliest.isoformat()}; set the "
                "camera's clock, or lower limits.earliest_capture_time",
                field=field,
            )
        if instant > now + self.max_ahead:
            raise InvalidArgument(
                f"{field} {instant.isoformat()} lies in the future (the service's clock shows "
                f"{now.isoformat()}); set the camera's clock, or raise "
                "limits.max_clock_ahead_seconds",
                field=field,
            )
        return instant
