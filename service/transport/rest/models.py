"""Registered encoders over REST."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, UploadFile
from google.protobuf import json_format
from pydantic import ValidationError
from starlette.types import Scope

from resight.errors import InvalidArgument
from resight.v1.bundle_pb2 import BundleManifest
from service.application.lifecycle import Lifecycle
from service.application.registry import Registry, Upload
from service.domain.model import GateVerdict
from service.transport.rest.model_schemas import FillingAnswer, Gate, ModelAnswer, ModelPage
from service.transport.rest.strict_route import StrictRoute

__all__ = ["is_upload", "router"]

_PATH = re.compile(r"/v1/galleries/[^/]+/models")
_CHUNK = 1024 * 1024
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


def is_upload(scope: Scope) -> bool:
    """Whether a request brings a bundle, whose body may be longer than an image's."""
    return scope["method"] == "POST" and _PATH.fullmatch(scope["path"]) is not None


def router(registry: Registry, lifecycle: Lifecycle) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(prefix="/models", tags=["models"], route_class=StrictRoute)

    @routes.post("", status_code=201)
    async def register_model(
        gallery: str,
        bundle: Annotated[UploadFile, File(description="The bundle as a `.tar`.")],
        sha256: Annotated[str, Form(description="Of the archive, lower-case hex.")],
        run_id: Annotated[str, Form()] = "",
        lease_token: Annotated[str, Form()] = "",
        gate: Annotated[str, Form(description="A JSON object, see `Gate`.")] = "{}",
    ) -> ModelAnswer:
        """Verify a bundle and register it as a candidate."""
        upload = Upload(
            gallery=gallery,
            sha256=_digest(sha256),
            size_bytes=bundle.size or 0,
            run_id=run_id,
            lease_token=lease_token,
            gate=_gate(gate),
        )
        return ModelAnswer.of(await registry.register(upload, _chunks(bundle)))

    @routes.get("")
    async def list_models(gallery: str, page_size: int = 0, page_token: str = "") -> ModelPage:
        """A page of models, newest first."""
        page = await registry.list(gallery, page_size, page_token)
        return ModelPage(
            models=[ModelAnswer.of(model) for model in page.items],
            next_page_token=page.next_page_token,
        )

    @routes.get("/{model_version}")
    async def get_model(gallery: str, model_version: str) -> ModelAnswer:
        """One model with the manifest of its bundle and how far it is filled."""
        model, manifest = await registry.get(gallery, model_version)
        answer = ModelAnswer.of(model, None if manifest is None else _manifest(manifest))
        filling = await lifecycle.filling(gallery, model_version)
        if filling is None:
            return answer
        return answer.model_copy(update={"filling": FillingAnswer.of(filling)})

    return routes


async def _chunks(bundle: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await bundle.read(_CHUNK):
        yield chunk


def _digest(text: str) -> bytes:
    if not _HEX_SHA256.fullmatch(text):
        raise InvalidArgument("sha256 is not 64 lower-case hex digits", field="sha256")
    return bytes.fromhex(text)


def _gate(text: str) -> GateVerdict:
    try:
        return Gate.model_validate_json(text).to_domain()
    except (ValidationError, ValueError) as error:
        raise InvalidArgument(
            "gate must be a JSON object with outcome (passed, refused or unknown), score, reasons "
            "and report",
            field="gate",
        ) from error


def _manifest(data: bytes) -> dict[str, Any]:
    return json_format.MessageToDict(BundleManifest.FromString(data))
