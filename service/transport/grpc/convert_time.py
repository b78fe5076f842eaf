"""Between protobuf's times and Python's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from resight.errors import InvalidArgument

__all__ = ["duration", "instant", "timestamp"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(value: datetime | None) -> Timestamp | None:
    """A message of an aware datetime; None stays unset."""
    if value is None:
        return None
    elapsed = value - _EPOCH
    seconds = elapsed.days * 86_400 + elapsed.seconds
    return Timestamp(seconds=seconds, nanos=elapsed.microseconds * 1000)


def instant(message: Timestamp, *, field: str) -> datetime:
    """The aware UTC datetime of a message, to the microsecond.

    Raises:
        InvalidArgument: Out of range.
    """
    try:
        if not 0 <= message.nanos < 1_000_000_000:
            raise OverflowError
        return _EPOCH + timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError as error:
        raise InvalidArgument(
            f"{field} is no valid timestamp; send years 1 to 9999 and nanos 0 to 999999999",
            field=field,
        ) from error


def duration(message: Duration, *, field: str) -> timedelta:
    """The timedelta of a message, to the microsecond.

    Raises:
        InvalidArgument: Out of range.
    """
    try:
        return timedelta(seconds=message.seconds, microseconds=message.nanos // 1000)
    except OverflowError as error:
        raise InvalidArgument(
            f"{field} is out of range; send at most 999999999 days", field=field
        ) from error
