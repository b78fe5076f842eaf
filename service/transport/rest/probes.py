"""Liveness, readiness and metrics; they touch nothing that can be slow."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from service.readiness import State
from service.telemetry import exposition

__all__ = ["install"]


def install(app: FastAPI, *, state: Callable[[], State], refresh: Callable[[], None]) -> None:
    """Add ``/healthz`` (the process answers), ``/readyz`` (it serves) and ``/metrics``."""

    @app.get("/healthz", include_in_schema=False)
    async def live() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", include_in_schema=False)
    async def ready() -> JSONResponse:
        now = state()
        return JSONResponse({"status": now}, status_code=200 if now == "ready" else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics(request: Request) -> Response:
        refresh()
        text, kind = exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": kind})
