"""The REST caller's deadline: what the gRPC deadline is to the other transport."""

from __future__ import annotations

from math import isfinite
from time import monotonic

from resight.errors import InvalidArgument
from service.transport.patience import waits

__all__ = ["TIMEOUT_HEADER", "deadline_after"]

TIMEOUT_HEADER = "Resight-Timeout"


def deadline_after(seconds: float | None) -> float | None:
    """The moment of ``time.monotonic()`` so many seconds from now; None without a limit.

    Raises:
        InvalidArgument: Not a positive number.
    """
    if seconds is None:
        return None
    if not isfinite(seconds) or seconds <= 0:
        raise InvalidArgument(
            f"{TIMEOUT_HEADER} is {seconds}; send the seconds the caller will wait, above 0",
            field=TIMEOUT_HEADER,
        )
    waits(seconds)
    return monotonic() + seconds
