"""Erasure and retention: part of resight.v1.AdminService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.v1 import admin_service_pb2 as messages
from resight.v1 import admin_service_pb2_grpc
from service.transport.grpc.convert import camera_message
from service.transport.grpc.convert_erasure import erasure_message, listed_message, subject
from service.transport.use_cases import UseCases

__all__ = ["ErasureCalls"]

Context = grpc.aio.ServicerContext[Any, Any]


class ErasureCalls(admin_service_pb2_grpc.AdminServiceServicer):
    """Erasure and retention."""

    _use_cases: UseCases

    async def CreateErasure(  # noqa: N802 -- the methods' names in the proto
        self, request: messages.CreateErasureRequest, _context: Context
    ) -> messages.CreateErasureResponse:
        """Makes the list to review."""
        made = await self._use_cases.erasures.plan(
            request.gallery, subject(request.subject), request.reason
        )
        return messages.CreateErasureResponse(erasure=erasure_message(made))

    async def ListErasureCrops(  # noqa: N802
        self, request: messages.ListErasureCropsRequest, _context: Context
    ) -> messages.ListErasureCropsResponse:
        """A page of the list."""
        page = await self._use_cases.erasures.crops(
            request.gallery, request.erasure_id, request.page_size, request.page_token
        )
        return messages.ListErasureCropsResponse(
            crops=[listed_message(item) for item in page.items],
            next_page_token=page.next_page_token,
        )

    async def ConfirmErasure(  # noqa: N802
        self, request: messages.ConfirmErasureRequest, _context: Context
    ) -> messages.ConfirmErasureResponse:
        """Removes what was reviewed."""
        done = await self._use_cases.erasures.confirm(
            request.gallery,
            request.erasure_id,
            crops=request.crops,
            keep=request.keep_crop_ids,
        )
        return messages.ConfirmErasureResponse(erasure=erasure_message(done))

    async def CancelErasure(  # noqa: N802
        self, request: messages.CancelErasureRequest, _context: Context
    ) -> messages.CancelErasureResponse:
        """Withdraws an erasure."""
        cancelled = await self._use_cases.erasures.cancel(request.gallery, request.erasure_id)
        return messages.CancelErasureResponse(erasure=erasure_message(cancelled))

    async def GetErasure(  # noqa: N802
        self, request: messages.GetErasureRequest, _context: Context
    ) -> messages.GetErasureResponse:
        """One erasure."""
        found = await self._use_cases.erasures.get(request.gallery, request.erasure_id)
        return messages.GetErasureResponse(erasure=erasure_message(found))

    async def ListErasures(  # noqa: N802
        self, request: messages.ListErasuresRequest, _context: Context
    ) -> messages.ListErasuresResponse:
        """A page of erasures."""
        page = await self._use_cases.erasures.list(
            request.gallery, request.page_size, request.page_token
        )
        return messages.ListErasuresResponse(
            erasures=[erasure_message(item) for item in page.items],
            next_page_token=page.next_page_token,
        )

    async def UpdateCameraRetention(  # noqa: N802
        self, request: messages.UpdateCameraRetentionRequest, _context: Context
    ) -> messages.UpdateCameraRetentionResponse:
        """Sets how long a camera's crops are kept."""
        stored = await self._use_cases.camera_retention.update(
            request.gallery,
            request.camera_id,
            request.retention_days if request.HasField("retention_days") else None,
        )
        return messages.UpdateCameraRetentionResponse(camera=camera_message(stored))
