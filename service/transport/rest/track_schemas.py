"""The JSON of TrackPerson."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, Field

from service.domain import trajectory as domain
from service.domain import travel_times
from service.transport.rest.filter_schemas import MAX_LIST, Strict
from service.transport.rest.search_schemas import Match, SearchBody

__all__ = ["LearnedTravelTimes", "TrackBody", "TrackResult"]


class TravelTime(Strict):
    """Seconds from leaving one camera's view to entering another's."""

    from_camera_id: str
    to_camera_id: str
    min_seconds: float
    typical_seconds: float
    max_seconds: float


class TrackBody(Strict):
    """Whom to follow, with a threshold."""

    query: SearchBody
    visit_gap_seconds: float | None = None
    travel_times: Annotated[tuple[TravelTime, ...], Field(max_length=MAX_LIST)] = ()
    use_learned_travel_times: bool = False

    def to_domain(self, gallery: str, *, deadline: float | None = None) -> domain.TrackQuery:
        """Not yet checked."""
        return domain.TrackQuery(
            query=self.query.to_domain(gallery, deadline=deadline),
            visit_gap_seconds=self.visit_gap_seconds,
            travel_times=[domain.TravelTime(**time.model_dump()) for time in self.travel_times],
            use_learned_travel_times=self.use_learned_travel_times,
        )


class Visit(BaseModel):
    """A stay before one camera; sightings by time."""

    camera_id: str
    start_time: datetime
    end_time: datetime
    sightings: list[Match]

    @classmethod
    def of(cls, visit: domain.Visit) -> Self:
        """From the domain's value."""
        return cls(
            camera_id=visit.camera_id,
            start_time=visit.start_time,
            end_time=visit.end_time,
            sightings=[Match.of(match) for match in visit.sightings],
        )


class Hop(BaseModel):
    """From one visit to the next."""

    kind: str = Field(description="`same_camera`, `plausible`, `late` or `unknown`.")
    seconds: float
    plausibility: float | None


class Conflict(BaseModel):
    """A visit left out: there were too few seconds from or to visit number `with_visit`."""

    visit: Visit
    with_visit: int
    seconds: float
    min_seconds: float


class TrackResult(BaseModel):
    """Visits by time, a hop between any two, what did not fit, and how it was found."""

    visits: list[Visit]
    hops: list[Hop]
    conflicts: list[Conflict]
    truncated: bool
    model_version: str
    mode: str
    rows_scanned: int
    rows_total: int
    index_lag_seconds: float
    travel_times_learn_time: datetime | None

    @classmethod
    def of(cls, answer: domain.TrackAnswer) -> Self:
        """From the domain's value."""
        found = answer.found
        return cls(
            visits=[Visit.of(visit) for visit in answer.visits],
            hops=[
                Hop(kind=hop.kind.value, seconds=hop.seconds, plausibility=hop.plausibility)
                for hop in answer.hops
            ],
            conflicts=[
                Conflict(
                    visit=Visit.of(conflict.visit),
                    with_visit=conflict.with_visit,
                    seconds=conflict.seconds,
                    min_seconds=conflict.min_seconds,
                )
                for conflict in answer.conflicts
            ],
            truncated=answer.truncated,
            model_version=found.model_version,
            mode=found.mode.value,
            rows_scanned=found.rows_scanned,
            rows_total=found.rows_total,
            index_lag_seconds=found.index_lag_seconds,
            travel_times_learn_time=answer.travel_times_learned_at,
        )


class LearnedTravelTime(BaseModel):
    """What was learned of the way from one camera to another; null where it is not sure."""

    from_camera_id: str
    to_camera_id: str
    matches: int
    min_seconds: float | None
    typical_seconds: float | None
    max_seconds: float | None

    @classmethod
    def of(cls, pair: travel_times.LearnedPair) -> Self:
        """From the domain's value."""
        time = pair.time
        return cls(
            from_camera_id=pair.from_camera_id,
            to_camera_id=pair.to_camera_id,
            matches=pair.matches,
            min_seconds=None if time is None else time.min_seconds,
            typical_seconds=None if time is None else time.typical_seconds,
            max_seconds=None if time is None else time.max_seconds,
        )


class LearnedTravelTimes(BaseModel):
    """What was learned of the ways between a gallery's cameras, and from what."""

    pairs: list[LearnedTravelTime]
    learn_time: datetime
    position: int
    model_version: str
    crops: int
    tracks: int
    lowest_score: float
    lowest_probability: float | None

    @classmethod
    def of(cls, table: travel_times.LearnedTravelTimes) -> Self:
        """From the domain's value."""
        return cls(
            pairs=[LearnedTravelTime.of(pair) for pair in table.pairs],
            learn_time=table.learned_at,
            position=table.position,
            model_version=table.model_version,
            crops=table.crops,
            tracks=table.tracks,
            lowest_score=table.lowest_score,
            lowest_probability=table.lowest_probability,
        )
