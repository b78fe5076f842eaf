"""resight.v1.GalleryService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from resight.v1 import gallery_service_pb2 as messages
from resight.v1 import gallery_service_pb2_grpc
from service.application.cameras import Cameras
from service.application.crops import Crops
from service.application.ingest import Ingest
from service.transport.grpc.convert import camera, camera_message, crop_message
from service.transport.grpc.convert_filter import crop_filter
from service.transport.grpc.convert_time import timestamp
from service.transport.grpc.ingest_room import IngestRoom
from service.transport.grpc.ingest_stream import IngestStream
from service.transport.grpc.verify_message import verify_message
from service.verification.running import Verification

__all__ = ["GalleryServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class GalleryServicer(gallery_service_pb2_grpc.GalleryServiceServicer):
    """Cameras and crops of a gallery."""

    def __init__(
        self,
        cameras: Cameras,
        crops: Crops,
        ingest: Ingest,
        verification: Verification,
        *,
        draining: asyncio.Event,
        max_in_flight_per_stream: int,
        room: IngestRoom,
    ) -> None:
        self._cameras = cameras
        self._crops = crops
        self._ingest = ingest
        self._verification = verification
        self._draining = draining
        self._limit = max_in_flight_per_stream
        self._room = room

    async def CreateCamera(  # noqa: N802 -- the method's name in the proto
        self, request: messages.CreateCameraRequest, _context: Context
    ) -> messages.CreateCameraResponse:
        """Registers a camera."""
        stored = await self._cameras.create(request.gallery, camera(request.camera))
        return messages.CreateCameraResponse(camera=camera_message(stored))

    async def ListCameras(  # noqa: N802
        self, request: messages.ListCamerasRequest, _context: Context
    ) -> messages.ListCamerasResponse:
        """A page of cameras."""
        page = await self._cameras.list(request.gallery, request.page_size, request.page_token)
        return messages.ListCamerasResponse(
            cameras=[camera_message(item) for item in page.items],
            next_page_token=page.next_page_token,
        )

    async def IngestCrops(  # noqa: N802
        self, request_iterator: AsyncIterator[messages.IngestCropsRequest], _context: Context
    ) -> AsyncIterator[messages.IngestCropsResponse]:
        """Answers each crop of the stream once."""
        stream = IngestStream(
            self._ingest,
            request_iterator,
            limit=self._limit,
            room=self._room,
            draining=self._draining,
        )
        async with aclosing(stream.answers()) as answers:
            async for answer in answers:
                yield answer

    async def GetCrop(  # noqa: N802
        self, request: messages.GetCropRequest, _context: Context
    ) -> messages.GetCropResponse:
        """One crop."""
        found = await self._crops.get(request.gallery, request.crop_id, request.include_image)
        return messages.GetCropResponse(crop=crop_message(found.crop), image=found.image or b"")

    async def ListCrops(  # noqa: N802
        self, request: messages.ListCropsRequest, _context: Context
    ) -> messages.ListCropsResponse:
        """A page of crops."""
        page = await self._crops.list(
            request.gallery, crop_filter(request.filter), request.page_size, request.page_token
        )
        return messages.ListCropsResponse(
            crops=[crop_message(item) for item in page.items],
            next_page_token=page.next_page_token,
        )

    async def DeleteCrop(  # noqa: N802
        self, request: messages.DeleteCropRequest, _context: Context
    ) -> messages.DeleteCropResponse:
        """Deletes one crop."""
        pending = await self._crops.delete(request.gallery, request.crop_id)
        return messages.DeleteCropResponse(pending_replicas=pending)

    async def GetGalleryStats(  # noqa: N802
        self, request: messages.GetGalleryStatsRequest, _context: Context
    ) -> messages.GetGalleryStatsResponse:
        """Counts of the gallery."""
        stats = await self._crops.stats(request.gallery)
        return messages.GetGalleryStatsResponse(
            crops=stats.crops,
            searchable=stats.searchable,
            cameras=stats.cameras,
            model_version=stats.model_version,
            dimension=stats.dimension,
            oldest_capture_time=timestamp(stats.oldest_capture_time),
            newest_capture_time=timestamp(stats.newest_capture_time),
        )

    async def VerifyGallery(  # noqa: N802
        self, request: messages.VerifyGalleryRequest, _context: Context
    ) -> AsyncIterator[messages.VerifyGalleryResponse]:
        """Progress, then the report."""
        asked = self._verification.verify(
            request.gallery,
            all_images=request.all_images,
            sample=request.sample if request.HasField("sample") else None,
            repair=request.repair,
        )
        async with aclosing(asked) as told:
            async for each in told:
                yield verify_message(each)
