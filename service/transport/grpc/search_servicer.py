"""resight.v1.SearchService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.errors import ResightError
from resight.v1 import search_service_pb2, search_service_pb2_grpc
from service.application.search import Search
from service.application.search_batch import SearchBatch
from service.application.track_person import TrackPerson
from service.application.travel_times import TravelTimes
from service.domain.query import SearchQuery
from service.transport.grpc.convert_search import search_query, search_response, search_result
from service.transport.grpc.convert_track import track_query, track_response, travel_times_message
from service.transport.grpc.deadline import deadline_of
from service.transport.search_metrics import counted

__all__ = ["SearchServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(search_service_pb2_grpc.SearchServiceServicer):
    """Ranks the crops of a gallery."""

    def __init__(
        self, search: Search, batch: SearchBatch, track: TrackPerson, travel_times: TravelTimes
    ) -> None:
        self._search = search
        self._batch = batch
        self._track = track
        self._travel_times = travel_times

    async def Search(  # noqa: N802 -- the method's name in the proto
        self, request: search_service_pb2.SearchRequest, context: Context
    ) -> search_service_pb2.SearchResponse:
        """The best matches of one query."""
        query = search_query(request, deadline=deadline_of(context))
        answer = counted(await self._search.search(query))
        return search_response(answer, group_by=query.group_by)

    async def SearchBatch(  # noqa: N802 -- the method's name in the proto
        self, request: search_service_pb2.SearchBatchRequest, context: Context
    ) -> search_service_pb2.SearchBatchResponse:
        """The best matches of several queries."""
        self._batch.check(len(request.queries))
        deadline = deadline_of(context)
        queries = [_converted(message, deadline) for message in request.queries]
        answers = await self._batch.search(queries)
        return search_service_pb2.SearchBatchResponse(
            results=[
                search_result(answer, query) for answer, query in zip(answers, queries, strict=True)
            ]
        )

    async def TrackPerson(  # noqa: N802 -- the method's name in the proto
        self, request: search_service_pb2.TrackPersonRequest, context: Context
    ) -> search_service_pb2.TrackPersonResponse:
        """Where a person was."""
        asked = track_query(request, deadline=deadline_of(context))
        answer = await self._track.track(asked)
        counted(answer.found)
        return track_response(answer)

    async def GetTravelTimes(  # noqa: N802 -- the method's name in the proto
        self,
        request: search_service_pb2.GetTravelTimesRequest,
        context: Context,  # noqa: ARG002 -- the signature is gRPC's
    ) -> search_service_pb2.GetTravelTimesResponse:
        """What was learned last."""
        table = self._travel_times.get(request.gallery)
        return search_service_pb2.GetTravelTimesResponse(travel_times=travel_times_message(table))

    async def LearnTravelTimes(  # noqa: N802 -- the method's name in the proto
        self, request: search_service_pb2.LearnTravelTimesRequest, context: Context
    ) -> search_service_pb2.LearnTravelTimesResponse:
        """Learn now."""
        table = await self._travel_times.learn(request.gallery, deadline=deadline_of(context))
        return search_service_pb2.LearnTravelTimesResponse(travel_times=travel_times_message(table))


def _converted(
    message: search_service_pb2.SearchRequest, deadline: float | None
) -> SearchQuery | ResightError:
    try:
        return search_query(message, deadline=deadline)
    except ResightError as error:
        return error
