"""The audit over REST."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import AwareDatetime

from service.application.auditing import Auditing
from service.transport.rest.audit_schemas import AuditEntry, AuditEntryPage, AuditVerdict
from service.transport.rest.strict_route import StrictRoute

__all__ = ["router"]


def router(auditing: Auditing) -> APIRouter:
    """The routes below /v1."""
    routes = APIRouter(tags=["audit"], route_class=StrictRoute)

    # Not in the path, so the gallery is a filter here.
    @routes.get("/audit")
    async def list_audit_entries(
        gallery: str = "",
        principal: str = "",
        start_time: AwareDatetime | None = None,
        end_time: AwareDatetime | None = None,
        action: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> AuditEntryPage:
        """A page of entries, by time, oldest first."""
        page = await auditing.list(
            gallery=gallery,
            principal=principal,
            start_time=start_time,
            end_time=end_time,
            action=action,
            page_size=page_size,
            page_token=page_token,
        )
        return AuditEntryPage(
            entries=[AuditEntry.of(entry) for entry in page.items],
            next_page_token=page.next_page_token,
        )

    @routes.post("/audit/verify")
    async def verify_audit() -> AuditVerdict:
        """Recompute every hash chain and check the signed checkpoints."""
        return AuditVerdict.of(await auditing.verify())

    return routes
