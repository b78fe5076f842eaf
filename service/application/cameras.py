"""Cameras: registered and listed."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from service import call
from service.application import visibility
from service.application.galleries import Galleries
from service.catalog import gallery_reads, gallery_writes
from service.catalog.records import CameraRecord, GalleryRecord
from service.catalog.store import Catalog
from service.domain import names
from service.domain import page as pages
from service.domain.crop import Camera, new_camera
from service.domain.page import Page
from service.domain.ports import Clock, Embedder
from service.settings import LimitSettings

__all__ = ["Cameras"]


class Cameras:
    """Registers and lists the cameras of a gallery."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        embedder: Embedder,
        clock: Clock,
        limits: LimitSettings,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._embedder = embedder
        self._clock = clock
        self._limits = limits

    async def create(self, gallery: str, camera: Camera) -> Camera:
        """Register a camera, and its gallery with the first one.

        The same definition again returns the stored one.

        Raises:
            InvalidArgument: a bad name or text.
            PermissionDenied: neither gallery nor camera may be the caller's.
            AlreadyExists: the id is taken by a different definition.
        """
        name = names.gallery_name(gallery)
        call.enter_gallery(name)
        checked = new_camera(camera.camera_id, display_name=camera.display_name, zone=camera.zone)
        call.current().note(camera_id=checked.camera_id)
        visibility.require_camera(checked.camera_id, field="camera.camera_id")
        now = self._clock.now()

        def apply(connection: Connection) -> tuple[GalleryRecord, CameraRecord]:
            record = self._ensure_gallery(connection, name, now)
            stored = gallery_writes.create_camera(
                connection,
                record.gallery_row,
                checked,
                now=now,
                max_cameras=self._limits.max_cameras,
            )
            return record, stored

        def committed(result: tuple[GalleryRecord, CameraRecord]) -> None:
            record, stored = result
            live = self._galleries.opened(record)
            live.add_camera(stored)
            live.follow()

        _, stored = await self._catalog.change(apply, committed=committed)
        return stored.camera

    async def list(self, gallery: str, page_size: int = 0, page_token: str = "") -> Page[Camera]:
        """Cameras by id.

        Raises:
            InvalidArgument, NotFound: bad page or unknown gallery.
        """
        live = self._galleries.get(gallery)
        size = pages.page_size(page_size, limit=self._limits.max_page_size)
        listing = f"cameras/{live.name}"
        position = pages.decode_token(page_token, listing=listing, shape=(str,))
        records = await self._catalog.read(
            gallery_reads.list_cameras,
            live.record.gallery_row,
            after=str(position[0]) if position else "",
            limit=size + 1,
            among=visibility.visible_cameras(live),
        )
        found = [record.camera for record in records[:size]]
        call.current().note(cameras=len(found))
        more = len(records) > size
        return Page(
            found, pages.encode_token([found[-1].camera_id], listing=listing) if more else ""
        )

    def _ensure_gallery(self, connection: Connection, name: str, now: datetime) -> GalleryRecord:
        return gallery_writes.ensure_gallery(
            connection,
            name,
            model_version=self._embedder.model_version,
            dimension=self._embedder.dimension,
            now=now,
            max_galleries=self._limits.max_galleries,
        )
