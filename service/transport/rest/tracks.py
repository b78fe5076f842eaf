"""A person's way over REST, and the travel times that were learned."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request

from service.application.track_person import TrackPerson
from service.application.travel_times import TravelTimes
from service.transport.rest.departure import unless_departed
from service.transport.rest.strict_route import StrictRoute
from service.transport.rest.timeout import TIMEOUT_HEADER, deadline_after
from service.transport.rest.track_schemas import LearnedTravelTimes, TrackBody, TrackResult
from service.transport.search_metrics import counted

__all__ = ["router"]

Wait = Annotated[float | None, Header(alias=TIMEOUT_HEADER)]


def router(track: TrackPerson, travel_times: TravelTimes) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(tags=["queries"], route_class=StrictRoute)

    @routes.post("/track")
    async def track_person(
        gallery: str, request: Request, body: TrackBody, wait: Wait = None
    ) -> TrackResult:
        """Where the query's person was: visits by time, and the way between them."""
        asked = body.to_domain(gallery, deadline=deadline_after(wait))
        answer = await unless_departed(request, track.track(asked))
        counted(answer.found)
        return TrackResult.of(answer)

    @routes.get("/travel-times")
    async def get_travel_times(gallery: str) -> LearnedTravelTimes:
        """The travel times that were learned last."""
        return LearnedTravelTimes.of(travel_times.get(gallery))

    @routes.post("/travel-times")
    async def learn_travel_times(
        gallery: str, request: Request, wait: Wait = None
    ) -> LearnedTravelTimes:
        """Learn travel times from the gallery's newest tracks, now."""
        learning = travel_times.learn(gallery, deadline=deadline_after(wait))
        return LearnedTravelTimes.of(await unless_departed(request, learning))

    return routes
