"""Erasure and retention: part of resight.v1.AdminService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.v1 import admin_service_pb2 as messages
from resight.v1 import admin_service_pb2_grpc

__all__ = ["ErasureCalls"]

Context = grpc.aio.ServicerContext[Any, Any]


class ErasureCalls(admin_service_pb2_grpc.AdminServiceServicer):
    """Erasure and retention."""

    async def CreateErasure(  # noqa: N802 -- the methods' names in the proto
        self, _request: messages.CreateErasureRequest, context: Context
    ) -> messages.CreateErasureResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def ListErasureCrops(  # noqa: N802
        self, _request: messages.ListErasureCropsRequest, context: Context
    ) -> messages.ListErasureCropsResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def ConfirmErasure(  # noqa: N802
        self, _request: messages.ConfirmErasureRequest, context: Context
    ) -> messages.ConfirmErasureResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def CancelErasure(  # noqa: N802
        self, _request: messages.CancelErasureRequest, context: Context
    ) -> messages.CancelErasureResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def GetErasure(  # noqa: N802
        self, _request: messages.GetErasureRequest, context: Context
    ) -> messages.GetErasureResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def ListErasures(  # noqa: N802
        self, _request: messages.ListErasuresRequest, context: Context
    ) -> messages.ListErasuresResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def UpdateCameraRetention(  # noqa: N802
        self, _request: messages.UpdateCameraRetentionRequest, context: Context
    ) -> messages.UpdateCameraRetentionResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError
