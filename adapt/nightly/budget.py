"""The time a night may take, and whether another epoch fits into it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from resight.errors import InvalidArgument

__all__ = ["TimeBudget", "duration"]

# An epoch grows with the clusters found; the next may be longer than the longest so far.
_MARGIN = 1.1
# Kept for what follows the training where no earlier night has measured it.
_RESERVED_SHARE = 0.2
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh])", re.ASCII)


class TimeBudget:
    """Counts from its making to ``total`` seconds; None never ends.

    Args:
        total: Seconds for the whole night.
        reserve: Seconds that export, gate and registration took last time; None when not known.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        total: float | None,
        *,
        reserve: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._clock = clock
        self._begun = clock()
        self._longest = 0.0
        if total is None:
            self._reserve = 0.0
        else:
            self._reserve = _RESERVED_SHARE * total if reserve is None else reserve * _MARGIN

    @property
    def elapsed(self) -> float:
        """Seconds since the night began."""
        return self._clock() - self._begun

    @property
    def left(self) -> float:
        """Seconds for training, what follows it already taken off; infinite without a budget."""
        if self._total is None:
            return float("inf")
        return self._total - self._reserve - self.elapsed

    def spent_by(self, epoch_seconds: float) -> bool:
        """Notes how long an epoch took; returns whether another might not fit."""
        self._longest = max(self._longest, epoch_seconds)
        return self._longest * _MARGIN > self.left


def duration(text: str) -> float:
    """Seconds of ``90s``, ``45m``, ``2h`` or ``1h30m``.

    Raises:
        InvalidArgument: It is none of these, or nothing.
    """
    parts = _DURATION.findall(text)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise InvalidArgument(
            f"{text!r} is not a time such as 90s, 45m, 2h or 1h30m", field="time-budget"
        )
    return seconds
