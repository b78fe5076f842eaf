"""resight.v1.ModelService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc

from resight.errors import InvalidArgument
from resight.v1 import bundle_pb2, model_service_pb2_grpc
from resight.v1 import model_service_pb2 as messages
from service.application.lifecycle import Lifecycle
from service.application.registry import Registry
from service.transport.grpc.convert_adaptation import model_message, upload
from service.transport.grpc.convert_lifecycle import filling_message, promoted_message

__all__ = ["ModelServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class ModelServicer(model_service_pb2_grpc.ModelServiceServicer):
    """The encoders of a gallery."""

    def __init__(self, registry: Registry, lifecycle: Lifecycle) -> None:
        self._registry = registry
        self._lifecycle = lifecycle

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
            filling=await self._filling(request.gallery, request.model_version),
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

    async def StageModel(  # noqa: N802
        self, request: messages.StageModelRequest, _context: Context
    ) -> messages.StageModelResponse:
        """Makes a candidate the shadow."""
        staged = await self._lifecycle.stage(
            request.gallery,
            request.model_version,
            retire_previous=request.retire_previous,
            reason=request.reason,
        )
        return messages.StageModelResponse(
            model=await self._model(request.gallery, staged.model_version),
            filling=await self._filling(request.gallery, staged.model_version),
            retired_version=staged.retired,
        )

    async def PromoteModel(  # noqa: N802
        self, request: messages.PromoteModelRequest, _context: Context
    ) -> messages.PromoteModelResponse:
        """Makes the shadow the model that answers."""
        promoted = await self._lifecycle.promote(
            request.gallery,
            request.model_version,
            allow_missing=request.allow_missing,
            force=request.force,
            reason=request.reason,
        )
        model, _ = await self._registry.get(request.gallery, promoted.model_version)
        return promoted_message(promoted, model)

    async def RollbackModel(  # noqa: N802
        self, request: messages.RollbackModelRequest, _context: Context
    ) -> messages.RollbackModelResponse:
        """Makes the previous model answer again."""
        done = await self._lifecycle.rollback(
            request.gallery, leaving=request.model_version, reason=request.reason
        )
        return messages.RollbackModelResponse(
            model=await self._model(request.gallery, done.model_version),
            previous_version=done.previous_version,
        )

    async def RetireModel(  # noqa: N802
        self, request: messages.RetireModelRequest, _context: Context
    ) -> messages.RetireModelResponse:
        """Retires a model that does not answer."""
        await self._lifecycle.retire(request.gallery, request.model_version, reason=request.reason)
        return messages.RetireModelResponse(
            model=await self._model(request.gallery, request.model_version)
        )

    async def PauseFilling(  # noqa: N802
        self, request: messages.PauseFillingRequest, _context: Context
    ) -> messages.PauseFillingResponse:
        """Lets the filling of the shadow rest."""
        found = await self._lifecycle.pause(request.gallery, request.model_version)
        return messages.PauseFillingResponse(filling=filling_message(found))

    async def ResumeFilling(  # noqa: N802
        self, request: messages.ResumeFillingRequest, _context: Context
    ) -> messages.ResumeFillingResponse:
        """Lets it go on."""
        found = await self._lifecycle.resume(request.gallery, request.model_version)
        return messages.ResumeFillingResponse(filling=filling_message(found))

    async def _model(self, gallery: str, version: str) -> messages.Model:
        return model_message((await self._registry.get(gallery, version))[0])

    async def _filling(self, gallery: str, version: str) -> messages.Filling | None:
        found = await self._lifecycle.filling(gallery, version)
        return None if found is None else filling_message(found)


async def _chunks(requests: AsyncIterator[messages.RegisterModelRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidArgument("after `upload` only `chunk` may come", field="chunk")
        yield request.chunk
