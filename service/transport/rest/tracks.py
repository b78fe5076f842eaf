"""A person's way over REST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Request

from service.application.track_person import TrackPerson
from service.transport.rest.departure import unless_departed
from service.transport.rest.timeout import TIMEOUT_HEADER, deadline_after
from service.transport.rest.track_schemas import TrackBody, TrackResult
from service.transport.search_metrics import counted

__all__ = ["router"]

Wait = Annotated[float | None, Header(alias=TIMEOUT_HEADER)]


def router(track: TrackPerson) -> APIRouter:
    """The route below a gallery."""
    routes = APIRouter(tags=["queries"])

    @routes.post("/track")
    async def track_person(
        gallery: str, request: Request, body: TrackBody, wait: Wait = None
    ) -> TrackResult:
        """Where the query's person was: visits by time, and the way between them."""
        asked = body.to_domain(gallery, deadline=deadline_after(wait))
        answer = await unless_departed(request, track.track(asked))
        counted(answer.found)
        return TrackResult.of(answer)

    return routes
