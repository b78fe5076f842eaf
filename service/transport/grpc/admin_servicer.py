"""resight.v1.AdminService, of its parts."""

from __future__ import annotations

from service.transport.grpc.admin_audit import AuditCalls
from service.transport.grpc.admin_erasures import ErasureCalls
from service.transport.grpc.admin_keys import KeyCalls

__all__ = ["AdminServicer"]


class AdminServicer(KeyCalls, AuditCalls, ErasureCalls):
    """Keys, audit, erasure and retention."""
