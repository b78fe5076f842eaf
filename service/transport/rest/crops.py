"""Crops over REST: ingest, read, list, delete, count."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, File, Form, Query, Response, UploadFile
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, TypeAdapter, ValidationError

from resight.errors import InvalidArgument
from service import call
from service.application.crops import Crops
from service.application.ingest import Ingest, IngestItem, Outcome
from service.telemetry import INGESTED
from service.transport.rest.filter_schemas import Filter, Range, Term
from service.transport.rest.ingest_result import raise_unless_stored
from service.transport.rest.schemas import Crop, CropPage, DeletionPending, IngestAnswer, Stats
from service.transport.rest.strict_route import StrictRoute

__all__ = ["router"]

Texts = Annotated[list[str], Query()]

_ATTRIBUTES = TypeAdapter(dict[str, str])


def router(crops: Crops, ingest: Ingest) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(tags=["crops"], route_class=StrictRoute)
    _add_ingest(routes, ingest)
    _add_reading(routes, crops)

    @routes.delete(
        "/crops/{crop_id}",
        status_code=204,
        response_class=Response,
        responses={
            202: {"model": DeletionPending, "description": "Deleted; replicas have yet to follow"}
        },
    )
    async def delete_crop(gallery: str, crop_id: str) -> Response:
        """Delete a crop: catalog row, vector and image; 204 when no replica has its vector."""
        if pending := await crops.delete(gallery, crop_id):
            body = DeletionPending(pending_replicas=list(pending))
            return JSONResponse(body.model_dump(), status_code=202)
        return Response(status_code=204)

    @routes.get("/stats")
    async def gallery_stats(gallery: str) -> Stats:
        """What the gallery holds."""
        stats = await crops.stats(gallery)
        return Stats(
            crops=stats.crops,
            searchable=stats.searchable,
            cameras=stats.cameras,
            model_version=stats.model_version,
            dimension=stats.dimension,
            oldest_capture_time=stats.oldest_capture_time,
            newest_capture_time=stats.newest_capture_time,
        )

    return routes


def _add_ingest(routes: APIRouter, ingest: Ingest) -> None:
    @routes.post(
        "/crops",
        status_code=201,
        responses={200: {"model": IngestAnswer, "description": "The same crop is already there"}},
    )
    async def ingest_crop(
        gallery: str,
        response: Response,
        image: Annotated[UploadFile, File()],
        camera_id: Annotated[str, Form()],
        capture_time: Annotated[AwareDatetime, Form()],
        crop_id: Annotated[str, Form()] = "",
        track_id: Annotated[str, Form()] = "",
        zone: Annotated[str, Form()] = "",
        attributes: Annotated[str, Form(description="A JSON object of strings.")] = "{}",
    ) -> IngestAnswer:
        """Ingest one crop; 201 means it is committed and survives a crash."""
        item = IngestItem(
            gallery=gallery,
            camera_id=camera_id,
            capture_time=capture_time,
            image=await image.read(),
            crop_id=crop_id,
            track_id=track_id,
            zone=zone,
            attributes=_attributes(attributes),
        )
        result = await ingest.submit(item)
        INGESTED.labels(result.outcome.value).inc()
        call.current().note(outcome=result.outcome.value, crop_id=str(result.crop_id or ""))
        raise_unless_stored(result)
        if result.outcome is Outcome.DUPLICATE:
            response.status_code = 200
        return IngestAnswer(outcome=result.outcome.value, crop_id=str(result.crop_id))


def _add_reading(routes: APIRouter, crops: Crops) -> None:
    @routes.get("/crops")
    async def list_crops(
        gallery: str,
        include_camera_ids: Texts = [],  # noqa: B006 -- FastAPI copies it
        exclude_camera_ids: Texts = [],  # noqa: B006
        include_zones: Texts = [],  # noqa: B006
        exclude_zones: Texts = [],  # noqa: B006
        include_track_ids: Texts = [],  # noqa: B006
        exclude_track_ids: Texts = [],  # noqa: B006
        include_attributes: Texts = [],  # noqa: B006
        exclude_attributes: Texts = [],  # noqa: B006
        start_time: AwareDatetime | None = None,
        end_time: AwareDatetime | None = None,
        page_size: int = 0,
        page_token: str = "",
    ) -> CropPage:
        """A page of crops, by capture time, then id; attributes as `key=value`, or `key`."""
        wanted = Filter(
            include_camera_ids=include_camera_ids,
            exclude_camera_ids=exclude_camera_ids,
            capture_range=Range(start_time=start_time, end_time=end_time),
            include_zones=include_zones,
            exclude_zones=exclude_zones,
            include_track_ids=include_track_ids,
            exclude_track_ids=exclude_track_ids,
            include_attributes=Term.parsed(include_attributes, field="include_attributes"),
            exclude_attributes=Term.parsed(exclude_attributes, field="exclude_attributes"),
        )
        page = await crops.list(gallery, wanted.to_domain(), page_size, page_token)
        return CropPage(
            crops=[Crop.of(crop) for crop in page.items], next_page_token=page.next_page_token
        )

    @routes.get("/crops/{crop_id}")
    async def get_crop(gallery: str, crop_id: str) -> Crop:
        """One crop."""
        return Crop.of((await crops.get(gallery, crop_id)).crop)

    @routes.get(
        "/crops/{crop_id}/image",
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {}}}},
    )
    async def get_image(gallery: str, crop_id: str) -> Response:
        """The encoded image as it was ingested."""
        image = (await crops.get(gallery, crop_id, include_image=True)).image or b""
        return Response(image, media_type=_media_type(image))


def _attributes(text: str) -> dict[str, str]:
    try:
        return _ATTRIBUTES.validate_json(text)
    except ValidationError as error:
        raise InvalidArgument(
            "attributes must be a JSON object whose values are strings", field="attributes"
        ) from error


def _media_type(image: bytes) -> str:
    if image.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if image.startswith(b"\x89PNG"):
        return "image/png"
    if image[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"
