"""resight.v1.AdaptationService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from resight.v1 import adaptation_service_pb2 as messages
from resight.v1 import adaptation_service_pb2_grpc
from service.application.adaptation import Adaptation
from service.application.crop_stream import CropStream
from service.application.run_records import RunRecords
from service.transport.grpc import convert_adaptation as convert

__all__ = ["AdaptationServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class AdaptationServicer(adaptation_service_pb2_grpc.AdaptationServiceServicer):
    """Nightly adaptation, one run at a time."""

    def __init__(
        self,
        adaptation: Adaptation,
        runs: RunRecords,
        crop_stream: CropStream,
        *,
        draining: asyncio.Event,
    ) -> None:
        self._adaptation = adaptation
        self._runs = runs
        self._crop_stream = crop_stream
        self._draining = draining

    async def StartAdaptationRun(  # noqa: N802 -- the method's name in the proto
        self, request: messages.StartAdaptationRunRequest, _context: Context
    ) -> messages.StartAdaptationRunResponse:
        """Takes the lease."""
        started = await self._adaptation.start(
            request.gallery, request.holder, convert.lease_length(request)
        )
        return convert.started_message(started)

    async def StreamAdaptationCrops(  # noqa: N802
        self, request: messages.StreamAdaptationCropsRequest, _context: Context
    ) -> AsyncIterator[messages.StreamAdaptationCropsResponse]:
        """The crops of the window, then the summary."""
        stream = self._crop_stream.stream(
            convert.run_key(request),
            convert.crop_choice(request),
            stopping=self._draining.is_set,
        )
        async with aclosing(stream) as items:
            async for item in items:
                yield convert.stream_message(item)

    async def HeartbeatAdaptationRun(  # noqa: N802
        self, request: messages.HeartbeatAdaptationRunRequest, _context: Context
    ) -> messages.HeartbeatAdaptationRunResponse:
        """Extends the lease."""
        run = await self._adaptation.heartbeat(
            convert.run_key(request), convert.lease_length(request), convert.progress(request)
        )
        return messages.HeartbeatAdaptationRunResponse(run=convert.run_message(run))

    async def ReportAdaptationRun(  # noqa: N802
        self, request: messages.ReportAdaptationRunRequest, _context: Context
    ) -> messages.ReportAdaptationRunResponse:
        """Adds to the record."""
        figures = None
        if request.HasField("figures"):
            figures = convert.figures(request.figures, field="figures")
        run = await self._adaptation.report(
            convert.run_key(request), figures, request.new_crop_ids, request.replay_crop_ids
        )
        return messages.ReportAdaptationRunResponse(run=convert.run_message(run))

    async def CheckAdaptationCrops(  # noqa: N802
        self, request: messages.CheckAdaptationCropsRequest, _context: Context
    ) -> messages.CheckAdaptationCropsResponse:
        """Which crops are gone."""
        missing = await self._adaptation.missing(convert.run_key(request), request.crop_ids)
        return messages.CheckAdaptationCropsResponse(missing_crop_ids=map(str, missing))

    async def FinishAdaptationRun(  # noqa: N802
        self, request: messages.FinishAdaptationRunRequest, _context: Context
    ) -> messages.FinishAdaptationRunResponse:
        """Ends the run."""
        run = await self._adaptation.finish(convert.run_key(request), convert.ending(request))
        return messages.FinishAdaptationRunResponse(run=convert.run_message(run))

    async def GetAdaptationRun(  # noqa: N802
        self, request: messages.GetAdaptationRunRequest, _context: Context
    ) -> messages.GetAdaptationRunResponse:
        """One run."""
        run = await self._runs.get(request.gallery, request.run_id)
        return messages.GetAdaptationRunResponse(run=convert.run_message(run))

    async def ListAdaptationRuns(  # noqa: N802
        self, request: messages.ListAdaptationRunsRequest, _context: Context
    ) -> messages.ListAdaptationRunsResponse:
        """A page of runs."""
        page = await self._runs.list(request.gallery, request.page_size, request.page_token)
        return messages.ListAdaptationRunsResponse(
            runs=[convert.run_message(run) for run in page.items],
            next_page_token=page.next_page_token,
        )

    async def ListAdaptationRunCrops(  # noqa: N802
        self, request: messages.ListAdaptationRunCropsRequest, _context: Context
    ) -> messages.ListAdaptationRunCropsResponse:
        """A page of the crops a run used."""
        page = await self._runs.list_crops(
            request.gallery, request.run_id, request.page_size, request.page_token
        )
        return messages.ListAdaptationRunCropsResponse(
            crops=[
                messages.AdaptationRunCrop(crop_id=str(crop_id), replay=replay)
                for crop_id, replay in page.items
            ],
            next_page_token=page.next_page_token,
        )
