"""Between the messages of adaptation and models and the domain's values."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from resight.errors import InvalidArgument
from resight.v1 import adaptation_service_pb2 as messages
from resight.v1 import model_service_pb2
from service.application.adaptation import StartedRun
from service.application.crop_stream import StreamedCrop, StreamSummary
from service.application.registry import Upload
from service.application.run_key import RunKey
from service.domain import adaptation as domain
from service.domain.adaptation import AdaptationRun, CropChoice, Ending, Progress, RunState, Span
from service.domain.model import GateOutcome, GateVerdict, Model, ModelState
from service.transport.grpc.convert import crop_message
from service.transport.grpc.convert_time import timestamp

__all__ = [
    "crop_choice",
    "ending",
    "figures",
    "lease_length",
    "model_message",
    "progress",
    "run_key",
    "run_message",
    "started_message",
    "stream_message",
    "upload",
]

_STATES = {
    RunState.RUNNING: messages.AdaptationRun.STATE_RUNNING,
    RunState.SUCCEEDED: messages.AdaptationRun.STATE_SUCCEEDED,
    RunState.REFUSED: messages.AdaptationRun.STATE_REFUSED,
    RunState.SKIPPED: messages.AdaptationRun.STATE_SKIPPED,
    RunState.FAILED: messages.AdaptationRun.STATE_FAILED,
    RunState.ABANDONED: messages.AdaptationRun.STATE_ABANDONED,
}
_MODEL_STATES = {
    ModelState.CANDIDATE: model_service_pb2.Model.STATE_CANDIDATE,
    ModelState.LIVE: model_service_pb2.Model.STATE_LIVE,
    ModelState.SHADOW: model_service_pb2.Model.STATE_SHADOW,
    ModelState.PREVIOUS: model_service_pb2.Model.STATE_PREVIOUS,
    ModelState.RETIRED: model_service_pb2.Model.STATE_RETIRED,
}
_GATES = {
    GateOutcome.UNKNOWN: model_service_pb2.GateVerdict.OUTCOME_UNSPECIFIED,
    GateOutcome.PASSED: model_service_pb2.GateVerdict.OUTCOME_PASSED,
    GateOutcome.REFUSED: model_service_pb2.GateVerdict.OUTCOME_REFUSED,
}


def run_key(
    request: messages.StreamAdaptationCropsRequest
    | messages.HeartbeatAdaptationRunRequest
    | messages.ReportAdaptationRunRequest
    | messages.CheckAdaptationCropsRequest
    | messages.FinishAdaptationRunRequest,
) -> RunKey:
    """How the caller proves itself."""
    return RunKey(request.gallery, request.run_id, request.lease_token)


def lease_length(
    request: messages.StartAdaptationRunRequest | messages.HeartbeatAdaptationRunRequest,
) -> timedelta | None:
    """The lease asked for; None when it is left to the service.

    Raises:
        InvalidArgument: out of range.
    """
    if not request.HasField("lease_duration"):
        return None
    try:
        return request.lease_duration.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"lease_duration is no valid duration ({error})", field="lease_duration"
        ) from error


def progress(request: messages.HeartbeatAdaptationRunRequest) -> Progress | None:
    """The progress, checked; None when it is left as it was."""
    if not request.HasField("progress"):
        return None
    told = request.progress
    return domain.progress(told.stage, told.fraction, told.message)


def figures(message: Struct, *, field: str) -> dict[str, Any]:
    """The JSON values of a message.

    Raises:
        InvalidArgument: a value that JSON does not have.
    """
    try:
        return json_format.MessageToDict(message)
    except (ValueError, json_format.Error) as error:
        raise InvalidArgument(f"{field} is not JSON ({error})", field=field) from error


def ending(request: messages.FinishAdaptationRunRequest) -> Ending:
    """How the run ended, checked."""
    state = next((mine for mine, theirs in _STATES.items() if theirs == request.state), None)
    return domain.ending(state, request.reason, request.message)


def crop_choice(request: messages.StreamAdaptationCropsRequest) -> CropChoice:
    """Which crops, not yet checked."""
    older = request.span == messages.StreamAdaptationCropsRequest.SPAN_OLDER
    return CropChoice(
        span=Span.OLDER if older else Span.NEW,
        camera_ids=tuple(request.camera_ids),
        cursor=request.cursor,
        max_crops=request.max_crops,
        sample_size=request.sample_size,
        sample_seed=request.sample_seed,
    )


def run_message(run: AdaptationRun) -> messages.AdaptationRun:
    """A run as stored."""
    return messages.AdaptationRun(
        run_id=str(run.run_id),
        state=_STATES[run.state],
        holder=run.holder,
        start_time=timestamp(run.start_time),
        update_time=timestamp(run.update_time),
        end_time=timestamp(run.end_time),
        lease_expire_time=timestamp(run.lease_expire_time),
        progress=messages.AdaptationProgress(
            stage=run.progress.stage,
            fraction=run.progress.fraction,
            message=run.progress.message,
        ),
        reason=run.reason,
        message=run.message,
        model_version=run.model_version,
        new_crops=run.new_crops,
        replay_crops=run.replay_crops,
        figures=None if run.figures is None else _struct(run.figures),
    )


def started_message(started: StartedRun) -> messages.StartAdaptationRunResponse:
    """What a starter gets."""
    interval = Duration()
    interval.FromTimedelta(started.heartbeat_interval)
    return messages.StartAdaptationRunResponse(
        run=run_message(started.run),
        lease_token=started.lease_token,
        heartbeat_interval=interval,
        cameras=[
            messages.CameraCropCount(
                camera_id=camera.camera_id,
                new_crops=camera.new_crops,
                older_crops=camera.older_crops,
            )
            for camera in started.cameras
        ],
    )


def stream_message(item: StreamedCrop | StreamSummary) -> messages.StreamAdaptationCropsResponse:
    """A crop, or the summary at the end."""
    if isinstance(item, StreamedCrop):
        crop = messages.AdaptationCrop(
            crop=crop_message(item.crop), image=item.image, cursor=item.cursor
        )
        return messages.StreamAdaptationCropsResponse(crop=crop)
    summary = messages.AdaptationStreamSummary(
        sent_crops=item.sent_crops,
        missing_images=item.missing_images,
        damaged_images=item.damaged_images,
        cursor=item.cursor,
        more=item.more,
    )
    return messages.StreamAdaptationCropsResponse(summary=summary)


def upload(message: model_service_pb2.ModelUpload) -> Upload:
    """What is about to be uploaded, not yet checked."""
    return Upload(
        gallery=message.gallery,
        sha256=message.sha256,
        size_bytes=message.size_bytes,
        run_id=message.run_id,
        lease_token=message.lease_token,
        gate=_gate(message.gate) if message.HasField("gate") else GateVerdict(),
    )


def model_message(model: Model) -> model_service_pb2.Model:
    """A model as stored."""
    gate = model.gate
    return model_service_pb2.Model(
        model_version=model.model_version,
        state=_MODEL_STATES[model.state],
        dimension=model.dimension,
        create_time=timestamp(model.create_time),
        parent_version=model.parent_version,
        method=model.method,
        run_id=str(model.run_id or ""),
        gate=model_service_pb2.GateVerdict(
            outcome=_GATES[gate.outcome],
            score=gate.score,
            reasons=gate.reasons,
            report=None if gate.report is None else _struct(gate.report),
        ),
        bundle_sha256=model.bundle_sha256,
        bundle_size_bytes=model.bundle_size_bytes,
    )


def _gate(message: model_service_pb2.GateVerdict) -> GateVerdict:
    outcome = next((mine for mine, theirs in _GATES.items() if theirs == message.outcome), None)
    if outcome is None:
        raise InvalidArgument(
            f"gate.outcome {message.outcome} is unknown here", field="gate.outcome"
        )
    report = figures(message.report, field="gate.report")
    return GateVerdict(outcome, message.score, tuple(message.reasons), report)


def _struct(values: Mapping[str, Any]) -> Struct:
    return json_format.ParseDict(dict(values), Struct())
