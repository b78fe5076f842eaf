"""resight.v1.ModelService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2, model_service_pb2_grpc
from resight.v1 import model_service_pb2 as messages
from service.application.registry import Registry
from service.transport.grpc.convert_adaptation import model_message, upload

__all__ = ["ModelServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """The encoders of a gallery."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def RegisterModel(  # noqa: N802 -- the method's name in the proto
        self, request_iterator: AsyncIterator[messages.RegisterModelRequest], _context: Context
    ) -> messages.RegisterModelResponse:
        """Receives a bundle and registers it as a candidate."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "upload":
            raise InvalidArgument("the first message must be `upload`", field="upload")
        model = await self._registry.register(upload(first.upload), _chunks(requests))
        return messages.RegisterModelResponse(model=model_message(model))

    async def GetModel(  # noqa: N802
        self, request: messages.GetModelRequest, _context: Context
    ) -> messages.GetModelResponse:
        """One model with its manifest."""
        model, manifest = await self._registry.get(request.gallery, request.model_version)
        return messages.GetModelResponse(
            model=model_message(model),
            manifest=None if manifest is None else bundle_pb2.BundleManifest.FromString(manifest),
        )

    async def ListModels(  # noqa: N802
        self, request: messages.ListModelsRequest, _context: Context
    ) -> messages.ListModelsResponse:
        """A page of models."""
        page = await self._registry.list(request.gallery, request.page_size, request.page_token)
        return messages.ListModelsResponse(
            models=[model_message(model) for model in page.items],
            next_page_token=page.next_page_token,
        )


async def _chunks(requests: AsyncIterator[messages.RegisterModelRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidArgument("after `upload` only `chunk` may come", field="chunk")
        yield request.chunk
