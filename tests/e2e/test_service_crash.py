"""Acknowledged means durable: kill -9 in the middle of a streaming ingest, then start again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import connect
from resight.v1 import gallery_service_pb2, search_service_pb2
from resight.v1.types_pb2 import Camera, Crop


def test_nothing_acknowledged_is_lost_to_kill_9(
    start_service: Any,
    catalog: dict[str, str],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
) -> None:
    data = tmp_path / "data"
    images = {number: make_jpeg(number) for number in range(3000)}
    acknowledged: dict[int, str] = {}
    with start_service(data, **catalog) as service, connect(service.grpc) as connection:
        connection.gallery.CreateCamera(
            gallery_service_pb2.CreateCameraRequest(camera=Camera(camera_id="door"))
        )
        call = connection.gallery.IngestCrops(items(images))
        with pytest.raises(grpc.RpcError) as caught:
            kill_at(150, service, call, acknowledged)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert 150 <= len(acknowledged) < len(images)

    with start_service(data, **catalog) as service, connect(service.grpc) as connection:
        assert service.crops >= len(acknowledged)
        for number, crop_id in acknowledged.items():
            answer = connection.search.Search(
                search_service_pb2.SearchRequest(image=images[number], top_k=1)
            )
            assert answer.matches[0].crop.crop_id == crop_id
            assert answer.matches[0].score > 0.999
            found = connection.gallery.GetCrop(
                gallery_service_pb2.GetCropRequest(crop_id=crop_id, include_image=True)
            )
            assert found.image == images[number]
        # What was not acknowledged is there whole or not at all, and can be sent again.
        outcomes = gallery_service_pb2.IngestCropsResponse.Outcome
        rest = {n: images[n] for n in list(images)[: len(acknowledged) + 100]}
        again = {a.sequence: a for a in connection.gallery.IngestCrops(items(rest))}
        for number in acknowledged:
            assert again[number].outcome == outcomes.Value("OUTCOME_DUPLICATE")
            assert again[number].crop_id == acknowledged[number]
        stats = connection.gallery.GetGalleryStats(gallery_service_pb2.GetGalleryStatsRequest())
        assert stats.crops == stats.searchable >= len(rest)
        for answer in again.values():
            found = connection.gallery.GetCrop(
                gallery_service_pb2.GetCropRequest(crop_id=answer.crop_id, include_image=True)
            )
            assert found.image == images[answer.sequence]


def kill_at(count: int, service: Any, call: Any, acknowledged: dict[int, str]) -> None:
    for answer in call:
        assert answer.outcome == gallery_service_pb2.IngestCropsResponse.OUTCOME_ACCEPTED
        acknowledged[answer.sequence] = answer.crop_id
        if len(acknowledged) == count:
            service.stop(signal.SIGKILL)


def items(images: dict[int, bytes]) -> Iterator[Any]:
    for number, image in images.items():
        yield gallery_service_pb2.IngestCropsRequest(
            sequence=number,
            image=image,
            crop=Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_225_600 + number)),
        )
