"""The audit: part of resight.v1.AdminService."""

from __future__ import annotations

import json
from typing import Any

import grpc

from resight.v1 import admin_service_pb2 as messages
from resight.v1 import admin_service_pb2_grpc
from service.catalog.audit import StoredEntry
from service.transport.grpc.convert_time import instant, timestamp
from service.transport.use_cases import UseCases

__all__ = ["AuditCalls"]

Context = grpc.aio.ServicerContext[Any, Any]

_MOST_FAULTS = 1000


class AuditCalls(admin_service_pb2_grpc.AdminServiceServicer):
    """The audit."""

    _use_cases: UseCases

    async def ListAuditEntries(  # noqa: N802 -- the methods' names in the proto
        self, request: messages.ListAuditEntriesRequest, _context: Context
    ) -> messages.ListAuditEntriesResponse:
        """A page of entries."""
        start = end = None
        if request.HasField("start_time"):
            start = instant(request.start_time, field="start_time")
        if request.HasField("end_time"):
            end = instant(request.end_time, field="end_time")
        page = await self._use_cases.auditing.list(
            gallery=request.gallery,
            principal=request.principal,
            start_time=start,
            end_time=end,
            action=request.action,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return messages.ListAuditEntriesResponse(
            entries=[_message(entry) for entry in page.items],
            next_page_token=page.next_page_token,
        )

    async def VerifyAudit(  # noqa: N802
        self, _request: messages.VerifyAuditRequest, _context: Context
    ) -> messages.VerifyAuditResponse:
        """Recompute everything."""
        found = await self._use_cases.auditing.verify()
        verdict = found.verdict
        return messages.VerifyAuditResponse(
            chains=verdict.chains,
            entries=verdict.entries,
            checkpoints=verdict.checkpoints,
            unsigned_entries=verdict.unsigned_entries,
            faults=[
                messages.AuditFault(
                    chain_id=fault.chain_id,
                    sequence=fault.sequence,
                    description=fault.description,
                )
                for fault in verdict.faults[:_MOST_FAULTS]
            ],
            signers=[
                messages.AuditSigner(signer=signer, public_key=pem)
                for signer, pem in found.public_keys.items()
            ],
        )


def _message(entry: StoredEntry) -> messages.AuditEntry:
    said = _said(entry.body)
    return messages.AuditEntry(
        chain_id=entry.chain_id.hex,
        sequence=entry.sequence,
        record_time=timestamp(entry.record_time),
        principal=entry.principal,
        action=entry.action,
        gallery=entry.gallery,
        purpose=str(said.get("purpose", "")),
        outcome=str(said.get("outcome", "")),
        request_id=str(said.get("request_id", "")),
        body=entry.body,
        digest=entry.digest,
    )


def _said(body: str) -> dict[str, Any]:
    """What the body says; nothing when somebody altered it, which verification tells."""
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
