"""Between the messages of resight.v1 and the domain's values."""

from __future__ import annotations

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from resight.v1 import types_pb2
from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse
from service.application.ingest import IngestItem, IngestResult, Outcome
from service.domain.crop import Camera, Crop
from service.transport.grpc.convert_time import instant, timestamp

__all__ = [
    "camera",
    "camera_message",
    "crop_message",
    "embedding_message",
    "fill_crop",
    "ingest_answer",
    "ingest_item",
]

_OUTCOMES = {
    Outcome.ACCEPTED: IngestCropsResponse.OUTCOME_ACCEPTED,
    Outcome.DUPLICATE: IngestCropsResponse.OUTCOME_DUPLICATE,
    Outcome.REJECTED: IngestCropsResponse.OUTCOME_REJECTED,
    Outcome.RETRY: IngestCropsResponse.OUTCOME_RETRY,
}


def camera(message: types_pb2.Camera) -> Camera:
    """The camera to register, not yet checked."""
    return Camera(message.camera_id, message.display_name, message.zone)


def camera_message(camera: Camera) -> types_pb2.Camera:
    """A camera as stored."""
    return types_pb2.Camera(
        camera_id=camera.camera_id,
        display_name=camera.display_name,
        zone=camera.zone,
        create_time=timestamp(camera.create_time),
        retention_days=camera.retention_days,
    )


def crop_message(crop: Crop) -> types_pb2.Crop:
    """A crop as stored."""
    message = types_pb2.Crop()
    fill_crop(message, crop)
    return message


def fill_crop(message: types_pb2.Crop, crop: Crop) -> None:
    """Field by field and in place: a full ranking has thousands, and this is the cheapest way."""
    message.crop_id = str(crop.crop_id)
    message.camera_id = crop.camera_id
    _set_time(message.capture_time, crop.capture_micros)
    message.track_id = crop.track_id
    message.zone = crop.zone
    if crop.attributes:
        message.attributes.update(crop.attributes)
    message.sha256 = crop.sha256
    if crop.create_micros is not None:
        _set_time(message.create_time, crop.create_micros)


def _set_time(message: Timestamp, micros: int) -> None:
    message.seconds, rest = divmod(micros, 1_000_000)
    message.nanos = rest * 1000


def embedding_message(vector: NDArray[np.float32], model_version: str) -> types_pb2.Embedding:
    """A vector, (D,) float32, and the version that made it."""
    return types_pb2.Embedding(
        values=vector.astype("<f4").tobytes(),
        dimension=len(vector),
        model_version=model_version,
    )


def ingest_item(request: IngestCropsRequest) -> IngestItem:
    """The crop to store, not yet checked."""
    crop = request.crop
    return IngestItem(
        gallery=request.gallery,
        camera_id=crop.camera_id,
        capture_time=instant(crop.capture_time, field="crop.capture_time")
        if crop.HasField("capture_time")
        else None,
        image=request.image,
        crop_id=crop.crop_id,
        track_id=crop.track_id,
        zone=crop.zone,
        attributes=dict(crop.attributes),
    )


def ingest_answer(sequence: int, result: IngestResult) -> IngestCropsResponse:
    """What became of an item."""
    return IngestCropsResponse(
        sequence=sequence,
        outcome=_OUTCOMES[result.outcome],
        crop_id=str(result.crop_id or ""),
        reason=result.reason,
        message=result.message,
    )
