"""This machine's clock against the database's, and against the last change that is stored.

Retention and leases act on the clock. One that is ahead has retention drop what may stay; one that
is behind keeps what must go, and leases expire at the wrong time.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection, and_, func, select

from resight.errors import FailedPrecondition
from service.catalog.database_clock import database_now
from service.catalog.models import cameras, changes, galleries
from service.settings import ServiceSettings

__all__ = ["refuse_wrong_clock"]

# A service that was stopped for a weekend is nothing to ask about, however short retention is.
_LONG_SILENCE = timedelta(days=7)


def refuse_wrong_clock(connection: Connection, settings: ServiceSettings, now: datetime) -> None:
    """Compare before anything acts on the time.

    Args:
        connection: To a catalog of this code's schema.
        settings: ``limits.max_clock_skew_seconds`` is how far apart clocks may be.
        now: What this machine's clock says.

    Raises:
        FailedPrecondition: it is too far from the database's (PostgreSQL), or behind the last
            change, or so far ahead of it that retention would drop everything (SQLite, whose
            clock is this one).
    """
    bound = timedelta(seconds=settings.limits.max_clock_skew_seconds)
    shared = connection.dialect.name == "postgresql"
    if shared:
        theirs = connection.execute(select(database_now())).scalar_one()
        if abs(now - theirs) > bound:
            raise _refused(now, f"the database's says {_text(theirs)}", abs(now - theirs))
    last = _last_change(connection)
    if last is None:
        return
    if last - now > bound:
        raise _refused(now, f"the last change was stored at {_text(last)}", last - now)
    days = _shortest_retention(connection, settings)
    if shared or days is None:
        return
    silence = now - last
    if silence > max(timedelta(days=days), _LONG_SILENCE, bound):
        raise _refused(
            now,
            f"the last change was stored at {_text(last)}, so retention ({days:g} days) would drop "
            "every crop",
            silence,
        )


def _last_change(connection: Connection) -> datetime | None:
    newest = and_(
        changes.c.gallery_row == galleries.c.gallery_row,
        changes.c.position == galleries.c.position,
    )
    statement = select(func.max(changes.c.create_time)).select_from(galleries.join(changes, newest))
    found: datetime | None = connection.execute(statement).scalar()
    return found


def _shortest_retention(connection: Connection, settings: ServiceSettings) -> float | None:
    shortest = connection.execute(select(func.min(cameras.c.retention_days))).scalar()
    return min((days for days in (settings.retention.days, shortest) if days), default=None)


def _refused(now: datetime, other: str, apart: timedelta) -> FailedPrecondition:
    seconds = int(apart.total_seconds()) + 1
    return FailedPrecondition(
        f"this machine's clock says {_text(now)} and {other}; set the clock right, or where it is "
        "right start once with limits.max_clock_skew_seconds "
        f"(RESIGHT_LIMITS__MAX_CLOCK_SKEW_SECONDS) of at least {seconds}",
        field="limits.max_clock_skew_seconds",
        reason="CLOCK_SKEW",
    )


def _text(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
