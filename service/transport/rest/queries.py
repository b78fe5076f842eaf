"""Search and embed over REST."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, File, Header, Request, UploadFile
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.datastructures import FormData

from resight.errors import InvalidArgument
from service.application.embed import Embed
from service.application.search import Search
from service.application.search_batch import SearchBatch
from service.transport.rest.departure import unless_departed
from service.transport.rest.filter_schemas import OwnCameraFields, Term
from service.transport.rest.schemas import EmbedAnswer
from service.transport.rest.search_schemas import (
    SearchBatchBody,
    SearchBatchResult,
    SearchBody,
    SearchResult,
)
from service.transport.rest.strict_route import StrictRoute, once
from service.transport.rest.timeout import TIMEOUT_HEADER, deadline_after
from service.transport.search_metrics import counted

__all__ = ["router"]

_LISTS = (
    "include_camera_ids",
    "exclude_camera_ids",
    "include_zones",
    "exclude_zones",
    "include_track_ids",
    "exclude_track_ids",
)
_TERMS = ("include_attributes", "exclude_attributes")
_TIMES = ("start_time", "end_time")
_PLAIN = (
    "top_k",
    "min_score",
    "min_probability",
    "page_token",
    "fusion",
    "group_by",
    "group_size",
    *OwnCameraFields.model_fields,
)
_RERANK = "rerank_candidates"
_FILES = ("image", "negative_image")
_TEXTS = {"type": "array", "items": {"type": "string"}}
_IMAGES = {"type": "array", "items": {"type": "string", "format": "binary"}}
# No setting allows more examples.
_MAX_FILES = 256
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": _IMAGES,
        "negative_image": _IMAGES,
        "fusion": {"type": "string", "enum": ["mean", "max", "quality"]},
        "top_k": {"type": "integer"},
        "min_score": {"type": "number"},
        "min_probability": {"type": "number"},
        "page_token": {"type": "string"},
        "group_by": {"type": "string", "enum": ["nothing", "camera", "track"]},
        "group_size": {"type": "integer"},
        _RERANK: {"type": "integer"},
        **dict.fromkeys((*_LISTS, *_TERMS), _TEXTS),
        "start_time": {"type": "string", "format": "date-time"},
        "end_time": {"type": "string", "format": "date-time"},
        **OwnCameraFields.model_json_schema()["properties"],
    },
}
_SEARCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            "application/json": {"schema": SearchBody.model_json_schema()},
        },
    }
}

Wait = Annotated[float | None, Header(alias=TIMEOUT_HEADER)]


def router(search: Search, batch: SearchBatch, embed: Embed) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(tags=["queries"], route_class=StrictRoute)

    @routes.post("/search", openapi_extra=_SEARCH_BODY)
    async def search_crops(gallery: str, request: Request, wait: Wait = None) -> SearchResult:
        """The best matches of images (multipart), of a stored crop, an embedding, or several
        examples (JSON).
        """
        body, images, negative_images = await _query(request)
        query = body.to_domain(
            gallery,
            images=images,
            negative_images=negative_images,
            deadline=deadline_after(wait),
        )
        answer = counted(await unless_departed(request, search.search(query)))
        return SearchResult.of(answer, query.group_by)

    @routes.post("/search-batch")
    async def search_batch(
        gallery: str, request: Request, body: SearchBatchBody, wait: Wait = None
    ) -> SearchBatchResult:
        """The best matches of several queries; an error of one leaves the others alone."""
        batch.check(len(body.queries))
        deadline = deadline_after(wait)
        queries = [item.to_domain(gallery, deadline=deadline) for item in body.queries]
        answers = await unless_departed(request, batch.search(queries))
        return SearchBatchResult.of(answers, queries, instance=request.url.path)

    @routes.post("/embed")
    async def embed_image(
        gallery: str,
        request: Request,
        image: Annotated[UploadFile, File()],
        wait: Wait = None,
    ) -> EmbedAnswer:
        """The vector of an image; nothing is stored."""
        data = await image.read()
        vector, version = await unless_departed(
            request, embed.embed(gallery, data, deadline=deadline_after(wait))
        )
        return EmbedAnswer.of(vector, version)

    return routes


async def _query(request: Request) -> tuple[SearchBody, list[bytes], list[bytes]]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            return SearchBody.model_validate(await request.json()), [], []
        if kind == "multipart/form-data":
            async with request.form(max_files=_MAX_FILES) as form:
                return (
                    _fields(form),
                    await _images(form, "image", needed=True),
                    await _images(form, "negative_image", needed=False),
                )
    except json.JSONDecodeError as error:
        invalid = {"type": "json_invalid", "loc": ("body",), "msg": "Invalid JSON"}
        raise RequestValidationError([{**invalid, "ctx": {"error": error.msg}}]) from error
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors()]
        ) from error
    raise InvalidArgument(
        "content-type must be multipart/form-data (with an image) or application/json "
        "(with crop_id or embedding)",
        field="content-type",
    )


def _fields(form: FormData) -> SearchBody:
    unknown = sorted(set(form) - {*_FILES, *_LISTS, *_TERMS, *_TIMES, *_PLAIN, _RERANK})
    if unknown:
        raise InvalidArgument(
            f"{unknown[0]} is no field of this form; see /v1/openapi.json", field=unknown[0]
        )
    once(form, (*_PLAIN, *_TIMES, _RERANK))
    for name, value in form.multi_items():
        if name not in _FILES and not isinstance(value, str):
            raise InvalidArgument(f"{name} is a text; send it without a file name", field=name)
    return SearchBody.model_validate(
        {name: form[name] for name in _PLAIN if name in form}
        | ({"rerank": {"candidates": form[_RERANK]}} if _RERANK in form else {})
        | {
            "filter": {name: form.getlist(name) for name in _LISTS}
            | {name: Term.parsed(_texts(form, name), field=name) for name in _TERMS}
            | {"capture_range": {name: form[name] for name in _TIMES if name in form}}
        }
    )


def _texts(form: FormData, name: str) -> list[str]:
    return [value for value in form.getlist(name) if isinstance(value, str)]


async def _images(form: FormData, name: str, *, needed: bool) -> list[bytes]:
    images = form.getlist(name)
    if (needed and not images) or any(isinstance(image, str) for image in images):
        raise InvalidArgument(f"{name} is missing; send it as a file part", field=name)
    return [await image.read() for image in images if not isinstance(image, str)]
