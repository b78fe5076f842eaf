"""Keys: part of resight.v1.AdminService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.v1 import admin_service_pb2 as messages
from resight.v1 import admin_service_pb2_grpc

__all__ = ["KeyCalls"]

Context = grpc.aio.ServicerContext[Any, Any]


class KeyCalls(admin_service_pb2_grpc.AdminServiceServicer):
    """Keys."""

    async def CreateApiKey(  # noqa: N802 -- the methods' names in the proto
        self, _request: messages.CreateApiKeyRequest, context: Context
    ) -> messages.CreateApiKeyResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def ListApiKeys(  # noqa: N802
        self, _request: messages.ListApiKeysRequest, context: Context
    ) -> messages.ListApiKeysResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def RevokeApiKey(  # noqa: N802
        self, _request: messages.RevokeApiKeyRequest, context: Context
    ) -> messages.RevokeApiKeyResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError
