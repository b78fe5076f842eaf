"""The REST application: /v1, the probes, and the middleware around them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from fastapi import FastAPI
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp, Scope

from resight import __version__
from service.access.gate import Gate
from service.readiness import State
from service.transport.rest import (
    adaptation,
    audit,
    cameras,
    crops,
    erasures,
    keys,
    lifecycle,
    models,
    probes,
    problems,
    purpose_header,
    queries,
    tracks,
    verification,
)
from service.transport.rest.body_limit import BodyLimit
from service.transport.rest.body_pace import BodyPace
from service.transport.rest.observation import Observation
from service.transport.use_cases import UseCases

__all__ = ["create_app", "create_probes"]

# Multipart boundaries and the other form fields.
_FORM_OVERHEAD = 256 * 1024
# Of JSON: 4000 attribute terms and 256 examples, and a hundred thousand more for travel times or
# many queries.
_FIELDS = 25_000
_FIELDS_OF_LISTS = 125_000
_LISTS = ("/track", "/search-batch")


def create_app(
    use_cases: UseCases,
    *,
    gate: Gate,
    state: Callable[[], State],
    refresh: Callable[[], None],
    draining: asyncio.Event,
    max_image_bytes: int,
    max_bundle_bytes: int,
    max_body_seconds: float,
    min_upload_bytes_per_second: int,
) -> ASGIApp:
    """The application, middleware included.

    Args:
        use_cases: What is served.
        gate: Passed by every request below /v1.
        state: Whether the service is ready.
        refresh: Brings the gauges up to date before they are shown.
        draining: Set when the service begins to stop.
        max_image_bytes: Longest image; a body may be a little longer.
        max_bundle_bytes: Longest archive of a bundle, likewise.
        max_body_seconds: Most that is waited for a body.
        min_upload_bytes_per_second: At which the archive of a bundle may take longer.
    """
    # A larger upload would be spooled to disk, and query images are never written there.
    MultiPartParser.spool_max_size = max_image_bytes + _FORM_OVERHEAD
    app = FastAPI(
        title="resight",
        version=__version__,
        summary="Finds the same person across cameras.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        # A redirection would go to whatever host the caller names.
        redirect_slashes=False,
    )
    problems.install(app)
    probes.install(app, state=state, refresh=refresh)
    for router in (
        cameras.router(use_cases.cameras),
        crops.router(use_cases.crops, use_cases.ingest),
        queries.router(use_cases.search, use_cases.search_batch, use_cases.embed),
        tracks.router(use_cases.track_person, use_cases.travel_times),
        adaptation.router(
            use_cases.adaptation, use_cases.runs, use_cases.crop_stream, draining=draining
        ),
        models.router(use_cases.registry, use_cases.lifecycle),
        lifecycle.router(use_cases.registry, use_cases.lifecycle),
        verification.router(use_cases.verification),
        erasures.router(use_cases.erasures),
        erasures.retention_router(use_cases.camera_retention),
    ):
        app.include_router(router, prefix="/v1/galleries/{gallery}", responses=problems.PROBLEMS)
    app.include_router(keys.router(use_cases.api_keys), prefix="/v1", responses=problems.PROBLEMS)
    app.include_router(audit.router(use_cases.auditing), prefix="/v1", responses=problems.PROBLEMS)
    problems.document(app)
    purpose_header.document(app)

    def limit(scope: Scope) -> int:
        longest = max_bundle_bytes if models.is_upload(scope) else max_image_bytes
        return longest + _FORM_OVERHEAD

    def fields(scope: Scope) -> int:
        return _FIELDS_OF_LISTS if scope["path"].endswith(_LISTS) else _FIELDS

    def rate(scope: Scope) -> float:
        return min_upload_bytes_per_second if models.is_upload(scope) else inf

    limited = BodyLimit(app, limit=limit, fields=fields)
    return Observation(BodyPace(limited, seconds=max_body_seconds, rate=rate), gate=gate)


def create_probes(*, state: Callable[[], State], refresh: Callable[[], None]) -> ASGIApp:
    """The application of the probes listener: ``/healthz``, ``/readyz`` and ``/metrics`` alone."""
    app = FastAPI(
        title="resight probes",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    problems.install(app)
    probes.install(app, state=state, refresh=refresh)
    return app
