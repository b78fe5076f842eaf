"""The bounds on what is in work at the same time, set and reached."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import connect
from resight.v1.embed_service_pb2 import EmbedRequest
from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    GetGalleryStatsRequest,
    IngestCropsRequest,
)
from resight.v1.types_pb2 import Camera, Crop


def test_calls_beyond_the_bound_are_refused_and_taken_again_later(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    bound = {"RESIGHT_GRPC__MAX_CONCURRENT_RPCS": "2"}
    with (
        start_service(tmp_path / "data", **bound) as service,
        connect(service.grpc) as connection,
    ):
        connection.gallery.CreateCamera(CreateCameraRequest(camera=Camera(camera_id="c")))
        finish = threading.Event()

        def held(second: int) -> Iterator[IngestCropsRequest]:
            crop = Crop(camera_id="c", capture_time=Timestamp(seconds=1_767_225_600 + second))
            yield IngestCropsRequest(crop=crop, image=make_jpeg(second))
            finish.wait(60)

        streams = [connection.gallery.IngestCrops(held(second)) for second in range(2)]
        for stream in streams:
            next(stream)  # answered, therefore running
        try:
            assert stats(connection) is grpc.StatusCode.RESOURCE_EXHAUSTED
        finally:
            finish.set()
        for stream in streams:
            assert list(stream) == []
        until = time.monotonic() + 120
        while (code := stats(connection)) is grpc.StatusCode.RESOURCE_EXHAUSTED:
            assert time.monotonic() < until
        assert code is grpc.StatusCode.OK


def test_images_beyond_the_bytes_are_refused_and_one_alone_never(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    images = [make_jpeg(seed) for seed in range(32)]
    bound = {"RESIGHT_BATCHER__MAX_QUEUE_BYTES": "1024"}
    assert min(map(len, images)) > 512, "two would not fit"
    with (
        start_service(tmp_path / "data", **bound) as service,
        connect(service.grpc) as connection,
    ):
        for image in images[:4]:
            connection.embed.Embed(EmbedRequest(image=image))
        assert refused(service) == 0

        def embed(image: bytes) -> grpc.StatusCode:
            try:
                connection.embed.Embed(EmbedRequest(image=image))
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        seen = set()
        until = time.monotonic() + 60
        with ThreadPoolExecutor(len(images)) as callers:
            while len(seen) < 2:  # until two meet
                assert time.monotonic() < until, seen
                seen |= set(callers.map(embed, images))
        assert seen == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert refused(service) > 0


def stats(connection: Any) -> grpc.StatusCode:
    try:
        connection.gallery.GetGalleryStats(GetGalleryStatsRequest())
    except grpc.RpcError as error:
        return error.code()
    return grpc.StatusCode.OK


def refused(service: Any) -> float:
    """Images that `/metrics` says were refused for their bytes."""
    lines = httpx.get(f"http://{service.rest}/metrics").text.splitlines()
    name = 'resight_rejected_total{reason="queue_bytes"} '
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))
