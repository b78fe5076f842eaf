"""Between the messages of TrackPerson and the domain's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

from resight.v1 import search_service_pb2 as messages
from service.domain.trajectory import HopKind, TrackAnswer, TrackQuery, TravelTime, Visit
from service.domain.travel_times import LearnedPair, LearnedTravelTimes
from service.transport.grpc.convert_search import add_matches, mode_value, search_query
from service.transport.grpc.convert_time import timestamp

__all__ = ["track_query", "track_response", "travel_times_message"]

_KINDS = {
    HopKind.SAME_CAMERA: messages.Hop.KIND_SAME_CAMERA,
    HopKind.PLAUSIBLE: messages.Hop.KIND_PLAUSIBLE,
    HopKind.LATE: messages.Hop.KIND_LATE,
    HopKind.UNKNOWN: messages.Hop.KIND_UNKNOWN,
}


class _TravelTimes(Sequence[TravelTime]):
    """Travel times made when they are read: they are counted before."""

    def __init__(self, times: Sequence[messages.TravelTime]) -> None:
        self._times = times

    def __len__(self) -> int:
        return len(self._times)

    @overload
    def __getitem__(self, place: int) -> TravelTime: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[TravelTime]: ...
    def __getitem__(self, place: int | slice) -> TravelTime | Sequence[TravelTime]:
        if isinstance(place, slice):
            return _TravelTimes(self._times[place])
        time = self._times[place]
        return TravelTime(
            time.from_camera_id,
            time.to_camera_id,
            time.min_seconds,
            time.typical_seconds,
            time.max_seconds,
        )


def track_query(request: messages.TrackPersonRequest, *, deadline: float | None) -> TrackQuery:
    """Whom to follow, not yet checked."""
    return TrackQuery(
        query=search_query(request.query, deadline=deadline),
        visit_gap_seconds=request.visit_gap_seconds
        if request.HasField("visit_gap_seconds")
        else None,
        travel_times=_TravelTimes(request.travel_times),
        use_learned_travel_times=request.use_learned_travel_times,
    )


def track_response(answer: TrackAnswer) -> messages.TrackPersonResponse:
    """The way."""
    found = answer.found
    response = messages.TrackPersonResponse(
        hops=[
            messages.Hop(kind=_KINDS[hop.kind], seconds=hop.seconds, plausibility=hop.plausibility)
            for hop in answer.hops
        ],
        truncated=answer.truncated,
        model_version=found.model_version,
        mode=mode_value(found.mode),
        rows_scanned=found.rows_scanned,
        rows_total=found.rows_total,
        index_lag_seconds=found.index_lag_seconds,
        travel_times_learn_time=timestamp(answer.travel_times_learned_at),
    )
    response.visits.extend(map(_visit_message, answer.visits))
    response.conflicts.extend(
        messages.Conflict(
            visit=_visit_message(conflict.visit),
            with_visit=conflict.with_visit,
            seconds=conflict.seconds,
            min_seconds=conflict.min_seconds,
        )
        for conflict in answer.conflicts
    )
    return response


def travel_times_message(table: LearnedTravelTimes) -> messages.TravelTimes:
    """What was learned."""
    return messages.TravelTimes(
        pairs=map(_pair_message, table.pairs),
        learn_time=timestamp(table.learned_at),
        position=table.position,
        model_version=table.model_version,
        crops=table.crops,
        tracks=table.tracks,
        lowest_score=table.lowest_score,
        lowest_probability=table.lowest_probability,
    )


def _pair_message(pair: LearnedPair) -> messages.LearnedTravelTime:
    time = pair.time
    return messages.LearnedTravelTime(
        from_camera_id=pair.from_camera_id,
        to_camera_id=pair.to_camera_id,
        matches=pair.matches,
        min_seconds=None if time is None else time.min_seconds,
        typical_seconds=None if time is None else time.typical_seconds,
        max_seconds=None if time is None else time.max_seconds,
    )


def _visit_message(visit: Visit) -> messages.Visit:
    message = messages.Visit(
        camera_id=visit.camera_id,
        start_time=timestamp(visit.start_time),
        end_time=timestamp(visit.end_time),
    )
    add_matches(message.sightings, visit.sightings)
    return message
