"""Cameras over REST."""

from __future__ import annotations

from fastapi import APIRouter

from service.application.cameras import Cameras
from service.domain.crop import Camera as DomainCamera
from service.transport.rest.schemas import Camera, CameraPage, CreateCamera
from service.transport.rest.strict_route import StrictRoute

__all__ = ["router"]


def router(cameras: Cameras) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(tags=["cameras"], route_class=StrictRoute)

    @routes.post("/cameras", status_code=201)
    async def create_camera(gallery: str, body: CreateCamera) -> Camera:
        """Register a camera; registering the same definition again returns it."""
        camera = DomainCamera(body.camera_id, body.display_name, body.zone)
        return Camera.of(await cameras.create(gallery, camera))

    @routes.get("/cameras")
    async def list_cameras(gallery: str, page_size: int = 0, page_token: str = "") -> CameraPage:
        """A page of cameras, by id."""
        page = await cameras.list(gallery, page_size, page_token)
        return CameraPage(
            cameras=[Camera.of(camera) for camera in page.items],
            next_page_token=page.next_page_token,
        )

    return routes
