"""How often somebody may ask: a token bucket a minute and a count a day (UTC), by principal.

Counted in this process alone: of ``n`` replicas somebody gets up to ``n`` times as much.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from resight.errors import ResourceExhausted
from service.domain.ports import Clock
from service.domain.principal import Principal
from service.telemetry import REJECTED

__all__ = ["Bucket", "RequestLimits"]

MINUTE = 60.0
MAX_PRINCIPALS = 50_000


class Bucket:
    """Holds at most ``capacity`` tokens and gains as many in a minute; begins full."""

    __slots__ = ("_at", "_capacity", "_left")

    def __init__(self, capacity: int, *, now: float) -> None:
        self._capacity = capacity
        self._left = float(capacity)
        self._at = now

    def wait(self, *, now: float, count: int = 1) -> float:
        """Take tokens: 0 when they were there, else seconds until they are, and none is taken.

        More than fit are taken as soon as it is full, and owed.
        """
        gained = (now - self._at) * self._capacity / MINUTE
        self._left = min(float(self._capacity), self._left + gained)
        self._at = now
        missing = min(count, self._capacity) - self._left
        if missing <= 0:
            self._left -= count
            return 0.0
        return missing * MINUTE / self._capacity


@dataclass(slots=True)
class _Use:
    bucket: Bucket
    per_minute: int
    day: int = 0
    today: int = 0


class RequestLimits:
    """Bounds requests. Used on the event loop only.

    Args:
        clock: Tells the day.
        per_minute, per_day: Of a principal without bounds of its own; 0 is no bound.
        monotonic: Seconds that never jump.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        per_minute: int,
        per_day: int,
        monotonic: Callable[[], float] = time.monotonic,
        most: int = MAX_PRINCIPALS,
    ) -> None:
        self._clock = clock
        self._per_minute = per_minute
        self._per_day = per_day
        self._monotonic = monotonic
        self._most = most
        self._uses: OrderedDict[str, _Use] = OrderedDict()

    def take(self, principal: Principal, count: int = 1) -> None:
        """Count requests.

        Raises:
            ResourceExhausted: the rate or the day's quota is used up (``RATE_LIMITED``,
                ``QUOTA_EXCEEDED``), with when to try again.
        """
        per_minute = principal.requests_per_minute or self._per_minute
        per_day = principal.requests_per_day or self._per_day
        if not per_minute and not per_day:
            return
        now, today = self._monotonic(), self._clock.now()
        use = self._use(principal.name, per_minute, now)
        if use.day != today.toordinal():
            use.day, use.today = today.toordinal(), 0
        if per_day and use.today + count > per_day:
            REJECTED.labels("quota").inc()
            raise ResourceExhausted(
                f"{principal.name} may ask {per_day} times a day (UTC), and has",
                field="requests_per_day",
                reason="QUOTA_EXCEEDED",
                retry_after=_until_tomorrow(today),
            )
        wait = use.bucket.wait(now=now, count=count) if per_minute else 0.0
        if wait:
            REJECTED.labels("rate_limit").inc()
            raise ResourceExhausted(
                f"{principal.name} may ask {per_minute} times a minute; try again in {wait:.1f} s",
                field="requests_per_minute",
                reason="RATE_LIMITED",
                retry_after=wait,
            )
        use.today += count

    def _use(self, name: str, per_minute: int, now: float) -> _Use:
        use = self._uses.get(name)
        if use is None or use.per_minute != per_minute:
            day, today = (0, 0) if use is None else (use.day, use.today)
            use = _Use(Bucket(per_minute, now=now), per_minute, day, today)
            self._uses[name] = use
            if len(self._uses) > self._most:
                # Whoever has not asked for longest has most likely gained all of it again.
                self._uses.popitem(last=False)
        self._uses.move_to_end(name)
        return use


def _until_tomorrow(now: datetime) -> float:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return (midnight - now).total_seconds()
