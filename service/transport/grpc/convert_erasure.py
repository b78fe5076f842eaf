"""Between the messages of erasures and the domain's values."""

from __future__ import annotations

from resight.errors import InvalidArgument
from resight.v1 import admin_service_pb2 as messages
from service.domain.erasure import (
    CameraSubject,
    CropOutcome,
    CropsSubject,
    Erasure,
    ErasureState,
    LikenessSubject,
    ListedCrop,
    SpanSubject,
    Subject,
    TrackSubject,
)
from service.transport.grpc.convert import fill_crop
from service.transport.grpc.convert_filter import crop_filter
from service.transport.grpc.convert_time import instant, timestamp

__all__ = ["erasure_message", "listed_message", "subject"]

_STATES = {
    ErasureState.PLANNED: messages.Erasure.STATE_PLANNED,
    ErasureState.RUNNING: messages.Erasure.STATE_RUNNING,
    ErasureState.DONE: messages.Erasure.STATE_DONE,
    ErasureState.CANCELLED: messages.Erasure.STATE_CANCELLED,
}
_OUTCOMES = {
    CropOutcome.LISTED: messages.ErasureCrop.OUTCOME_LISTED,
    CropOutcome.KEPT: messages.ErasureCrop.OUTCOME_KEPT,
    CropOutcome.REMOVED: messages.ErasureCrop.OUTCOME_REMOVED,
    CropOutcome.ABSENT: messages.ErasureCrop.OUTCOME_ABSENT,
}


def subject(message: messages.ErasureSubject) -> Subject:
    """Which crops must go, not yet checked.

    Raises:
        InvalidArgument: none of the ways of saying so, or a bad time.
    """
    match message.WhichOneof("subject"):
        case "crops":
            return CropsSubject(message.crops.crop_ids)
        case "track":
            return TrackSubject(message.track.track_id, message.track.camera_id)
        case "span":
            return _span(message.span)
        case "camera_id":
            return CameraSubject(message.camera_id)
        case "likeness":
            return _likeness(message.likeness)
        case _:
            raise InvalidArgument(
                "subject is missing; send crops, a track, a span, a camera or a likeness",
                field="subject",
            )


def erasure_message(erasure: Erasure) -> messages.Erasure:
    """An erasure as stored."""
    return messages.Erasure(
        erasure_id=str(erasure.erasure_id),
        gallery=erasure.gallery,
        state=_STATES[erasure.state],
        subject=erasure.subject,
        reason=erasure.reason,
        principal=erasure.principal,
        crops=erasure.listed,
        removed=erasure.removed,
        create_time=timestamp(erasure.create_time),
        complete_time=timestamp(erasure.complete_time),
        receipt=erasure.receipt,
        kept=erasure.kept,
        absent=erasure.absent,
        more_matched=erasure.more,
        confirm_time=timestamp(erasure.confirm_time),
        confirmer=erasure.confirmer,
    )


def listed_message(item: ListedCrop) -> messages.ErasureCrop:
    """A crop of a list."""
    message = messages.ErasureCrop(
        score=item.score,
        remove_time=timestamp(item.remove_time),
        outcome=_OUTCOMES[item.outcome],
    )
    if item.crop is None:
        message.crop.crop_id = str(item.crop_id)
    else:
        fill_crop(message.crop, item.crop)
    return message


def _span(message: messages.SpanSubject) -> SpanSubject:
    start, end = (
        instant(getattr(message, name), field=f"subject.span.{name}")
        if message.HasField(name)
        else None
        for name in ("start_time", "end_time")
    )
    return SpanSubject(start, end, message.camera_ids)


def _likeness(message: messages.LikenessSubject) -> LikenessSubject:
    kind = message.WhichOneof("example")
    return LikenessSubject(
        image=message.image if kind == "image" else None,
        crop_id=message.crop_id if kind == "crop_id" else None,
        min_probability=message.min_probability if message.HasField("min_probability") else None,
        min_score=message.min_score if message.HasField("min_score") else None,
        max_crops=message.max_crops,
        filter=crop_filter(message.filter),
    )
