"""resight.v1.SearchService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.v1 import search_service_pb2, search_service_pb2_grpc
from service.application.search import Search
from service.transport.grpc.convert_search import search_query, search_response
from service.transport.grpc.deadline import deadline_of
from service.transport.search_metrics import counted

__all__ = ["SearchServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class SearchServicer(search_service_pb2_grpc.SearchServiceServicer):
    """Ranks the crops of a gallery."""

    def __init__(self, search: Search) -> None:
        self._search = search

    async def Search(  # noqa: N802 -- the method's name in the proto
        self, request: search_service_pb2.SearchRequest, context: Context
    ) -> search_service_pb2.SearchResponse:
        """The best matches of one query."""
        query = search_query(request, deadline=deadline_of(context))
        return search_response(counted(await self._search.search(query)))
