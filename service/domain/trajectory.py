"""A person's way between cameras."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

from resight.errors import InvalidArgument
from service.domain.instant import from_micros
from service.domain.query import Match, SearchAnswer, SearchQuery

__all__ = [
    "Conflict",
    "Hop",
    "HopKind",
    "TrackAnswer",
    "TrackQuery",
    "TravelTime",
    "Visit",
    "checked_travel_times",
    "checked_visit_gap",
]

DEFAULT_VISIT_GAP = 60.0
MAX_SECONDS = 1e8


@dataclass(frozen=True, slots=True)
class TravelTime:
    """Seconds from leaving one camera's view to entering another's."""

    from_camera_id: str
    to_camera_id: str
    min_seconds: float
    typical_seconds: float
    max_seconds: float


@dataclass(frozen=True, slots=True)
class TrackQuery:
    """Whom to follow: ``query`` with a threshold, ``top_k`` the most sightings looked at.

    Travel times that are given come before those that were learned.
    """

    query: SearchQuery = field(default_factory=SearchQuery)
    visit_gap_seconds: float | None = None
    travel_times: Sequence[TravelTime] = ()
    use_learned_travel_times: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """A stay before one camera: sightings by time, at least one."""

    sightings: Sequence[Match]

    @property
    def camera_id(self) -> str:
        """The camera."""
        return self.sightings[0].crop.camera_id

    @property
    def start(self) -> int:
        """The first sighting, microseconds."""
        return self.sightings[0].crop.capture_micros

    @property
    def end(self) -> int:
        """The last sighting, microseconds."""
        return self.sightings[-1].crop.capture_micros

    @property
    def start_time(self) -> datetime:
        """The first sighting."""
        return from_micros(self.start)

    @property
    def end_time(self) -> datetime:
        """The last sighting."""
        return from_micros(self.end)

    @property
    def best(self) -> Match:
        """The sighting most like the query."""
        return max(self.sightings, key=lambda match: match.score)


class HopKind(Enum):
    """What is known of the way between two visits."""

    SAME_CAMERA = "same_camera"
    PLAUSIBLE = "plausible"
    LATE = "late"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Hop:
    """From one visit to the next: seconds unseen, and how well they fit the travel time, 0 to 1;
    None where it is not known.
    """

    kind: HopKind
    seconds: float
    plausibility: float | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A visit left out: from or to visit number ``with_visit`` there were too few seconds."""

    visit: Visit
    with_visit: int
    seconds: float
    min_seconds: float


@dataclass(frozen=True, slots=True)
class TrackAnswer:
    """Visits by time, a hop between any two, and what did not fit; how the sightings were found;
    when the travel times were learned, where learned ones were asked for.
    """

    visits: Sequence[Visit]
    hops: Sequence[Hop]
    conflicts: Sequence[Conflict]
    found: SearchAnswer
    truncated: bool
    travel_times_learned_at: datetime | None = None


def checked_visit_gap(value: float | None) -> float:
    """Most seconds between sightings of one visit; 60 when None.

    Raises:
        InvalidArgument: NaN, negative or more than a day.
    """
    if value is None:
        return DEFAULT_VISIT_GAP
    if not 0.0 <= value <= 86_400.0:
        raise InvalidArgument(
            f"visit_gap_seconds {value} is out of range; send 0 to 86400",
            field="visit_gap_seconds",
        )
    return value


def checked_travel_times(
    times: Sequence[TravelTime], *, limit: int
) -> dict[tuple[str, str], TravelTime]:
    """Travel times by pair of cameras; the way back takes as long unless it is given.

    Raises:
        InvalidArgument: too many, a pair twice or of one camera, or times that do not rise.
    """
    if len(times) > limit:
        raise InvalidArgument(
            f"travel_times has {len(times)} pairs; send at most {limit} (limits.max_travel_times)",
            field="travel_times",
        )
    table: dict[tuple[str, str], TravelTime] = {}
    for place, time in enumerate(times):
        where = f"travel_times[{place}]"
        pair = (time.from_camera_id, time.to_camera_id)
        if pair[0] == pair[1] or pair in table:
            wrong = "is of one camera" if pair[0] == pair[1] else "is given twice"
            raise InvalidArgument(f"{where}: {pair[0]!r} to {pair[1]!r} {wrong}", field=where)
        spans = (time.min_seconds, time.typical_seconds, time.max_seconds)
        rising = 0 <= spans[0] <= spans[1] <= spans[2] <= MAX_SECONDS
        if not (all(map(math.isfinite, spans)) and rising):
            raise InvalidArgument(
                f"{where}: min_seconds, typical_seconds and max_seconds are {spans}; send "
                f"0 <= min <= typical <= max <= {MAX_SECONDS:.0f}",
                field=where,
            )
        table[pair] = time
    return {(b, a): time for (a, b), time in table.items()} | table
