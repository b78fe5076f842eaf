"""The audit: part of resight.v1.AdminService."""

from __future__ import annotations

from typing import Any

import grpc

from resight.v1 import admin_service_pb2 as messages
from resight.v1 import admin_service_pb2_grpc

__all__ = ["AuditCalls"]

Context = grpc.aio.ServicerContext[Any, Any]


class AuditCalls(admin_service_pb2_grpc.AdminServiceServicer):
    """The audit."""

    async def ListAuditEntries(  # noqa: N802 -- the methods' names in the proto
        self, _request: messages.ListAuditEntriesRequest, context: Context
    ) -> messages.ListAuditEntriesResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError

    async def VerifyAudit(  # noqa: N802
        self, _request: messages.VerifyAuditRequest, context: Context
    ) -> messages.VerifyAuditResponse:
        """Not there yet."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "not there yet")
        raise AssertionError
