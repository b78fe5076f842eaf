"""TrackPerson: the sightings of a query's person as a way between cameras."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from resight.errors import InvalidArgument
from service.application import visibility
from service.application.call_notes import note_travel_cameras
from service.application.galleries import Galleries
from service.application.search import Search
from service.application.travel_times import TravelTimes
from service.domain.groups import GroupBy
from service.domain.query import Match, SearchQuery
from service.domain.trajectory import (
    Conflict,
    Hop,
    TrackAnswer,
    TrackQuery,
    Visit,
    checked_travel_times,
    checked_visit_gap,
)
from service.retrieval.trajectory import Table, best_way, conflicts, hop, visits
from service.settings import LimitSettings

__all__ = ["TrackPerson"]

DEFAULT_SIGHTINGS = 500


class TrackPerson:
    """Follows a person through a gallery."""

    def __init__(
        self,
        *,
        search: Search,
        galleries: Galleries,
        travel_times: TravelTimes,
        limits: LimitSettings,
    ) -> None:
        self._search = search
        self._galleries = galleries
        self._travel_times = travel_times
        self._limits = limits

    async def track(self, asked: TrackQuery) -> TrackAnswer:
        """The way of the query's person, stored crops among its examples included.

        Raises:
            InvalidArgument: no threshold, a field of searches alone, bad travel times; whatever
                ``Search`` refuses.
            NotFound: unknown gallery, crop or camera.
            FailedPrecondition, ResourceExhausted, DeadlineExceeded, Unavailable: as ``Search``.
        """
        limits = self._limits
        _check(asked.query)
        gap = checked_visit_gap(asked.visit_gap_seconds)
        given = checked_travel_times(asked.travel_times, limit=limits.max_travel_times)
        gallery = self._galleries.get(asked.query.gallery)
        note_travel_cameras(each for pair in given for each in pair)
        for place, time in enumerate(asked.travel_times):
            for end in ("from_camera_id", "to_camera_id"):
                field = f"travel_times[{place}].{end}"
                visibility.require_camera(getattr(time, end), field=field)
                gallery.camera(getattr(time, end), field=field)
        query = asked.query
        if query.top_k is None:
            query = replace(query, top_k=min(DEFAULT_SIGHTINGS, limits.max_top_k))
        learned = None
        if asked.use_learned_travel_times:
            learned = await self._travel_times.recent(query.gallery, deadline=query.deadline)
        table = given if learned is None else {**learned.table, **given}
        found = await self._search.search(query, with_examples=True)
        way, hops, left_out = await asyncio.to_thread(_way, found.matches, gap, table)
        return TrackAnswer(
            visits=way,
            hops=hops,
            conflicts=left_out,
            found=replace(found, matches=()),
            truncated=bool(found.next_page_token),
            travel_times_learned_at=None if learned is None else learned.learned_at,
        )


def _way(
    matches: Sequence[Match], gap: float, table: Table
) -> tuple[list[Visit], list[Hop], list[Conflict]]:
    ordered = visits(matches, gap)
    places = best_way(ordered, table)
    way = [ordered[place] for place in places]
    hops = [hop(one, other, table) for one, other in pairwise(way)]
    return way, [item for item in hops if item is not None], conflicts(ordered, places, table)


def _check(query: SearchQuery) -> None:
    if query.min_score is None and query.min_probability is None:
        raise InvalidArgument(
            "min_score or min_probability is missing: without a threshold every crop is a sighting",
            field="min_score",
        )
    for name, unset in (
        ("page_token", not query.page_token),
        ("group_by", query.group_by is GroupBy.NOTHING and query.group_size is None),
        ("rerank", query.rerank is None),
    ):
        if not unset:
            raise InvalidArgument(f"{name} has no effect on a track; remove it", field=name)
