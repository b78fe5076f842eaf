"""resight.v1.AdminService, of its parts."""

from __future__ import annotations

from service.transport.grpc.admin_audit import AuditCalls
from service.transport.grpc.admin_erasures import ErasureCalls
from service.transport.grpc.admin_keys import KeyCalls
from service.transport.use_cases import UseCases

__all__ = ["AdminServicer"]


class AdminServicer(KeyCalls, AuditCalls, ErasureCalls):
    """Keys, audit, erasure and retention."""

    def __init__(self, use_cases: UseCases) -> None:
        self._use_cases = use_cases
