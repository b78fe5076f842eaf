"""resight.v1.EmbedService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.v1 import embed_service_pb2, embed_service_pb2_grpc
from service.application.embed import Embed
from service.transport.grpc.convert import embedding_message
from service.transport.grpc.deadline import deadline_of

__all__ = ["EmbedServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class EmbedServicer(embed_service_pb2_grpc.EmbedServiceServicer):
    """Embeds images without storing anything."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    async def Embed(  # noqa: N802 -- the method's name in the proto
        self, request: embed_service_pb2.EmbedRequest, context: Context
    ) -> embed_service_pb2.EmbedResponse:
        """The vector of one image."""
        vector, version = await self._embed.embed(
            request.gallery, request.image, deadline=deadline_of(context)
        )
        return embed_service_pb2.EmbedResponse(embedding=embedding_message(vector, version))
