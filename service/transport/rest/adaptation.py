"""Adaptation runs over REST; the lease token travels in the header ``Resight-Lease``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from service.application.adaptation import Adaptation
from service.application.crop_stream import CropStream, StreamedCrop, StreamSummary
from service.application.run_key import RunKey
from service.application.run_records import RunRecords
from service.domain.adaptation import CropChoice, Span
from service.transport.rest.adaptation_schemas import (
    CheckCrops,
    FinishRun,
    HeartbeatRun,
    MissingCrops,
    ReportRun,
    Run,
    RunCropPage,
    RunPage,
    Started,
    StartRun,
    StreamLine,
)
from service.transport.rest.strict_route import StrictRoute

__all__ = ["router"]

Lease = Annotated[str, Header(alias="Resight-Lease", description="From the answer to the start.")]
_LINES = "application/x-ndjson"


def router(
    adaptation: Adaptation, runs: RunRecords, crop_stream: CropStream, *, draining: asyncio.Event
) -> APIRouter:
    """The routes below a gallery."""
    routes = APIRouter(prefix="/adaptation-runs", tags=["adaptation"], route_class=StrictRoute)
    _add_writing(routes, adaptation)
    _add_reading(routes, runs)

    @routes.get(
        "/{run_id}/stream",
        response_class=StreamingResponse,
        responses={200: {"content": {_LINES: {"schema": StreamLine.model_json_schema()}}}},
    )
    async def stream_crops(
        gallery: str,
        run_id: str,
        lease: Lease,
        span: Literal["new", "older"] = "new",
        camera_ids: Annotated[list[str], Query()] = [],  # noqa: B006 -- FastAPI copies it
        cursor: str = "",
        max_crops: int = 0,
        sample_size: int = 0,
        sample_seed: int = 0,
    ) -> StreamingResponse:
        """The crops of the run's window, one JSON object a line; the last line is the summary."""
        choice = CropChoice(
            Span(span), tuple(camera_ids), cursor, max_crops, sample_size, sample_seed
        )
        items = crop_stream.stream(RunKey(gallery, run_id, lease), choice, stopping=draining.is_set)
        # What is wrong with the request is known with the first item, while a problem can be told.
        first = await anext(items)
        return StreamingResponse(_lines(first, items), media_type=_LINES)

    return routes


def _add_writing(routes: APIRouter, adaptation: Adaptation) -> None:
    @routes.post("", status_code=201)
    async def start_run(gallery: str, body: StartRun) -> Started:
        """Start a run under the gallery's lease; 409 while another run holds it."""
        return Started.of(await adaptation.start(gallery, body.holder, body.lease()))

    @routes.post("/{run_id}/heartbeat")
    async def heartbeat_run(gallery: str, run_id: str, lease: Lease, body: HeartbeatRun) -> Run:
        """Extend the lease and note the progress; 409 when the lease is lost."""
        key = RunKey(gallery, run_id, lease)
        return Run.of(await adaptation.heartbeat(key, body.lease(), body.told()))

    @routes.post("/{run_id}/report")
    async def report_run(gallery: str, run_id: str, lease: Lease, body: ReportRun) -> Run:
        """Add figures and crops to the record."""
        key = RunKey(gallery, run_id, lease)
        run = await adaptation.report(key, body.figures, body.new_crop_ids, body.replay_crop_ids)
        return Run.of(run)

    @routes.post("/{run_id}/check")
    async def check_crops(
        gallery: str, run_id: str, lease: Lease, body: CheckCrops
    ) -> MissingCrops:
        """Which of the crops that a machine holds are gone: it must delete them."""
        missing = await adaptation.missing(RunKey(gallery, run_id, lease), body.crop_ids)
        return MissingCrops(missing_crop_ids=[str(each) for each in missing])

    @routes.post("/{run_id}/finish")
    async def finish_run(gallery: str, run_id: str, lease: Lease, body: FinishRun) -> Run:
        """End the run and release the lease."""
        return Run.of(await adaptation.finish(RunKey(gallery, run_id, lease), body.ending()))


def _add_reading(routes: APIRouter, runs: RunRecords) -> None:
    @routes.get("")
    async def list_runs(gallery: str, page_size: int = 0, page_token: str = "") -> RunPage:
        """A page of runs, newest first, without figures."""
        page = await runs.list(gallery, page_size, page_token)
        return RunPage(
            runs=[Run.of(run) for run in page.items], next_page_token=page.next_page_token
        )

    @routes.get("/{run_id}")
    async def get_run(gallery: str, run_id: str) -> Run:
        """One run."""
        return Run.of(await runs.get(gallery, run_id))

    @routes.get("/{run_id}/crops")
    async def list_run_crops(
        gallery: str, run_id: str, page_size: int = 0, page_token: str = ""
    ) -> RunCropPage:
        """A page of the crops a run used, by crop id."""
        page = await runs.list_crops(gallery, run_id, page_size, page_token)
        return RunCropPage.of(list(page.items), page.next_page_token)


async def _lines(
    first: StreamedCrop | StreamSummary, items: AsyncGenerator[StreamedCrop | StreamSummary, None]
) -> AsyncIterator[bytes]:
    async with aclosing(items):
        yield _line(first)
        async for item in items:
            yield _line(item)


def _line(item: StreamedCrop | StreamSummary) -> bytes:
    return StreamLine.of(item).model_dump_json(exclude_none=True).encode() + b"\n"
