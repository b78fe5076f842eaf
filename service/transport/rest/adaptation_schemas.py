"""The JSON of adaptation: resight.v1 with its field names, times in RFC 3339."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from service.application.adaptation import StartedRun
from service.application.crop_stream import StreamedCrop, StreamSummary
from service.domain import adaptation as domain
from service.transport.rest.problems import Problem
from service.transport.rest.schemas import Crop

__all__ = [
    "CheckCrops",
    "FinishRun",
    "HeartbeatRun",
    "MissingCrops",
    "ReportRun",
    "Run",
    "RunCropPage",
    "RunPage",
    "StartRun",
    "Started",
    "StreamLine",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class StartRun(_Strict):
    """What is to be started."""

    holder: str
    lease_seconds: float | None = None

    def lease(self) -> timedelta | None:
        """The lease asked for."""
        return _length(self.lease_seconds)


class Progress(_Strict):
    """How far a run is."""

    stage: str = ""
    fraction: float = 0.0
    message: str = ""


class HeartbeatRun(_Strict):
    """A sign of life."""

    lease_seconds: float | None = None
    progress: Progress | None = None

    def lease(self) -> timedelta | None:
        """The lease asked for."""
        return _length(self.lease_seconds)

    def told(self) -> domain.Progress | None:
        """The progress, checked."""
        if self.progress is None:
            return None
        return domain.progress(self.progress.stage, self.progress.fraction, self.progress.message)


class ReportRun(_Strict):
    """What is to be added to the record."""

    figures: dict[str, Any] | None = None
    new_crop_ids: list[str] = []
    replay_crop_ids: list[str] = []


class CheckCrops(_Strict):
    """Crops that a machine holds."""

    crop_ids: list[str]


class MissingCrops(BaseModel):
    """Those of which nothing is stored."""

    missing_crop_ids: list[str]


class FinishRun(_Strict):
    """How a run ended."""

    state: str = Field(description="`succeeded`, `refused`, `skipped` or `failed`.")
    reason: str = ""
    message: str = ""

    def ending(self) -> domain.Ending:
        """The ending, checked."""
        known = {state.value: state for state in domain.RunState}
        return domain.ending(known.get(self.state), self.reason, self.message)


class Run(BaseModel):
    """The record of a run."""

    run_id: str
    state: str
    holder: str
    start_time: datetime
    update_time: datetime
    end_time: datetime | None
    lease_expire_time: datetime | None
    progress: Progress
    reason: str
    message: str
    model_version: str
    new_crops: int
    replay_crops: int
    figures: dict[str, Any] | None = Field(description="Left out of listings.")

    @classmethod
    def of(cls, run: domain.AdaptationRun) -> Self:
        """From the domain's value."""
        told = run.progress
        return cls(
            run_id=str(run.run_id),
            state=run.state.value,
            holder=run.holder,
            start_time=run.start_time,
            update_time=run.update_time,
            end_time=run.end_time,
            lease_expire_time=run.lease_expire_time,
            progress=Progress(stage=told.stage, fraction=told.fraction, message=told.message),
            reason=run.reason,
            message=run.message,
            model_version=run.model_version,
            new_crops=run.new_crops,
            replay_crops=run.replay_crops,
            figures=None if run.figures is None else dict(run.figures),
        )


class RunPage(BaseModel):
    """A page of runs, newest first."""

    runs: list[Run]
    next_page_token: str


class RunCrop(BaseModel):
    """A crop a run used."""

    crop_id: str
    replay: bool


class RunCropPage(BaseModel):
    """A page of a run's crops, by crop id."""

    crops: list[RunCrop]
    next_page_token: str

    @classmethod
    def of(cls, items: list[tuple[UUID, bool]], token: str) -> Self:
        """From ids, each with whether it was for replay."""
        crops = [RunCrop(crop_id=str(crop_id), replay=replay) for crop_id, replay in items]
        return cls(crops=crops, next_page_token=token)


class CameraCropCount(BaseModel):
    """How many crops of one camera there are."""

    camera_id: str
    new_crops: int
    older_crops: int


class Started(BaseModel):
    """The started run."""

    run: Run
    lease_token: str
    heartbeat_interval_seconds: float
    cameras: list[CameraCropCount]

    @classmethod
    def of(cls, started: StartedRun) -> Self:
        """From the application's answer."""
        return cls(
            run=Run.of(started.run),
            lease_token=started.lease_token,
            heartbeat_interval_seconds=started.heartbeat_interval.total_seconds(),
            cameras=[
                CameraCropCount(
                    camera_id=camera.camera_id,
                    new_crops=camera.new_crops,
                    older_crops=camera.older_crops,
                )
                for camera in started.cameras
            ],
        )


class StreamedCropLine(BaseModel):
    """One crop to learn from."""

    crop: Crop
    image: str = Field(description="The encoded image in base64.")
    cursor: str


class SummaryLine(BaseModel):
    """What a stream held."""

    sent_crops: int
    missing_images: int
    damaged_images: int
    cursor: str
    more: bool


class StreamLine(BaseModel):
    """One line of the stream: a crop, or at the end the summary, or a problem when the credentials
    have lapsed meanwhile.
    """

    crop: StreamedCropLine | None = None
    summary: SummaryLine | None = None
    problem: Problem | None = None

    @classmethod
    def of(cls, item: StreamedCrop | StreamSummary) -> Self:
        """From the application's item."""
        if isinstance(item, StreamedCrop):
            image = base64.b64encode(item.image).decode()
            return cls(
                crop=StreamedCropLine(crop=Crop.of(item.crop), image=image, cursor=item.cursor)
            )
        return cls(
            summary=SummaryLine(
                sent_crops=item.sent_crops,
                missing_images=item.missing_images,
                damaged_images=item.damaged_images,
                cursor=item.cursor,
                more=item.more,
            )
        )


def _length(seconds: float | None) -> timedelta | None:
    # Beyond any lease, and what timedelta cannot hold: the rule refuses it in words.
    return None if seconds is None else timedelta(seconds=max(0.0, min(seconds, 1e9)))
