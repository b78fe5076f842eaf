"""Crops sent to a service, and what it says of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import Connection
from resight.v1 import gallery_service_pb2 as messages
from resight.v1.types_pb2 import Camera, Crop

OUTCOME = messages.IngestCropsResponse.Outcome
START = 1_767_225_600
MEGABYTE = 1024 * 1024


def item(number: int, image: bytes, *, crop_id: str = "") -> Any:
    return messages.IngestCropsRequest(
        sequence=number,
        image=image,
        crop=Crop(
            crop_id=crop_id, camera_id="door", capture_time=Timestamp(seconds=START + number)
        ),
    )


def add_camera(connection: Connection) -> None:
    connection.gallery.CreateCamera(messages.CreateCameraRequest(camera=Camera(camera_id="door")))


def stored(connection: Connection, *, at_rest: bool = True) -> int:
    stats = connection.gallery.GetGalleryStats(messages.GetGalleryStatsRequest())
    assert not at_rest or stats.searchable == stats.crops
    return int(stats.crops)


def counted(answers: Sequence[Any]) -> dict[str, int]:
    return dict(Counter(OUTCOME.Name(a.outcome).removeprefix("OUTCOME_") for a in answers))
