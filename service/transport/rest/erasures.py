"""Erasures and retention over REST."""

from __future__ import annotations

from fastapi import APIRouter, Request

from service.application.camera_retention import CameraRetention
from service.application.erasure.erasures import Erasures
from service.transport.rest.departure import unless_departed
from service.transport.rest.erasure_schemas import (
    ConfirmErasure,
    CreateErasure,
    Erasure,
    ErasureCrop,
    ErasureCropPage,
    ErasurePage,
    UpdateRetention,
)
from service.transport.rest.schemas import Camera
from service.transport.rest.strict_route import StrictRoute

__all__ = ["retention_router", "router"]


def router(erasures: Erasures) -> APIRouter:
    """The routes of erasures below a gallery."""
    routes = APIRouter(prefix="/erasures", tags=["erasures"], route_class=StrictRoute)

    @routes.post("", status_code=201)
    async def create_erasure(gallery: str, request: Request, body: CreateErasure) -> Erasure:
        """Make the list of crops that would go; nothing is removed."""
        planning = erasures.plan(gallery, body.subject.to_domain(), body.reason)
        return Erasure.of(await unless_departed(request, planning))

    @routes.get("")
    async def list_erasures(gallery: str, page_size: int = 0, page_token: str = "") -> ErasurePage:
        """A page of erasures, newest first, without receipts."""
        page = await erasures.list(gallery, page_size, page_token)
        return ErasurePage(
            erasures=[Erasure.of(item) for item in page.items],
            next_page_token=page.next_page_token,
        )

    @routes.get("/{erasure_id}")
    async def get_erasure(gallery: str, erasure_id: str) -> Erasure:
        """One erasure, with its receipt when it is done."""
        return Erasure.of(await erasures.get(gallery, erasure_id))

    @routes.get("/{erasure_id}/crops")
    async def list_erasure_crops(
        gallery: str, erasure_id: str, page_size: int = 0, page_token: str = ""
    ) -> ErasureCropPage:
        """A page of the list: a likeness best score first, others by capture time."""
        page = await erasures.crops(gallery, erasure_id, page_size, page_token)
        return ErasureCropPage(
            crops=[ErasureCrop.of(item) for item in page.items],
            next_page_token=page.next_page_token,
        )

    @routes.post("/{erasure_id}/confirm")
    async def confirm_erasure(gallery: str, erasure_id: str, body: ConfirmErasure) -> Erasure:
        """Remove what was reviewed, everywhere; again goes on, or returns the receipt."""
        done = await erasures.confirm(
            gallery, erasure_id, crops=body.crops, keep=body.keep_crop_ids
        )
        return Erasure.of(done)

    @routes.post("/{erasure_id}/cancel")
    async def cancel_erasure(gallery: str, erasure_id: str) -> Erasure:
        """Withdraw an erasure that was not confirmed."""
        return Erasure.of(await erasures.cancel(gallery, erasure_id))

    return routes


def retention_router(retention: CameraRetention) -> APIRouter:
    """The route of one camera's retention below a gallery."""
    routes = APIRouter(tags=["cameras"], route_class=StrictRoute)

    @routes.put("/cameras/{camera_id}/retention")
    async def update_retention(gallery: str, camera_id: str, body: UpdateRetention) -> Camera:
        """Keep a camera's crops for another time than the others'."""
        return Camera.of(await retention.update(gallery, camera_id, body.retention_days))

    return routes
