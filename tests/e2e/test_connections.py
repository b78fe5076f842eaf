"""Connections that nobody uses are closed; one with an open stream is not, however old it is."""

from __future__ import annotations

import queue
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import connect
from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    GetGalleryStatsRequest,
    IngestCropsRequest,
    IngestCropsResponse,
)
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e.conftest import jpeg

IDLE, AGE = 1.0, 2.0
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack(">I", 0)[1:] + bytes([4, 0, 0, 0, 0, 0])
PING = b"\0\0\x08" + bytes([6, 0, 0, 0, 0, 0]) + b"01234567"
GOAWAY, ENHANCE_YOUR_CALM = 7, 11


@pytest.fixture(scope="module")
def impatient(
    start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    settings = {
        "RESIGHT_GRPC__MAX_CONNECTION_IDLE_SECONDS": str(IDLE),
        "RESIGHT_GRPC__MAX_CONNECTION_AGE_SECONDS": str(AGE),
    }
    with start_service(tmp_path_factory.mktemp("connections") / "data", **settings) as service:
        yield service


def opened(target: str) -> socket.socket:
    host, _, port = target.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)


def frames(stream: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Kind and payload of what comes, until the end of the connection."""
    data = b""
    while True:
        try:
            more = stream.recv(4096)
        except ConnectionError:
            return
        if not more:
            return
        data += more
        while len(data) >= 9 and len(data) >= 9 + int.from_bytes(data[:3], "big"):
            length = int.from_bytes(data[:3], "big")
            yield data[3], data[9 : 9 + length]
            data = data[9 + length :]


def test_a_connection_without_a_call_is_closed(impatient: Any) -> None:
    with opened(impatient.grpc) as stream:
        stream.sendall(PREFACE)
        said = [kind for kind, _ in frames(stream)]
    assert GOAWAY in said


def test_a_flood_of_pings_ends_its_connection(impatient: Any) -> None:
    with opened(impatient.grpc) as stream:
        stream.sendall(PREFACE + PING * 50)
        ends = [payload for kind, payload in frames(stream) if kind == GOAWAY]
    assert ENHANCE_YOUR_CALM in {int.from_bytes(payload[4:8], "big") for payload in ends}


def test_a_client_s_idle_channel_is_let_go_and_comes_back(impatient: Any) -> None:
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    with grpc.insecure_channel(impatient.grpc) as channel:
        gallery = GalleryServiceStub(channel)
        channel.subscribe(states.put)
        gallery.GetGalleryStats(GetGalleryStatsRequest(), timeout=60, wait_for_ready=True)
        while states.get(timeout=60) is not grpc.ChannelConnectivity.READY:
            pass
        while states.get(timeout=60) is not grpc.ChannelConnectivity.IDLE:
            pass
        gallery.GetGalleryStats(GetGalleryStatsRequest(), timeout=60)


def test_an_open_stream_outlives_idleness_and_age(impatient: Any) -> None:
    work: queue.SimpleQueue[IngestCropsRequest | None] = queue.SimpleQueue()

    def item(number: int) -> IngestCropsRequest:
        crop = Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_225_600 + number))
        return IngestCropsRequest(sequence=number, crop=crop, image=jpeg(number))

    with connect(impatient.grpc) as connection:
        created = CreateCameraRequest(camera=Camera(camera_id="door"))
        connection.gallery.CreateCamera(created)
        answers: Any = connection.gallery.IngestCrops(iter(work.get, None))
        for number in range(3):
            work.put(item(number))
            assert next(answers).outcome == IngestCropsResponse.OUTCOME_ACCEPTED
            # More than idleness, and together more than age with its spread of a tenth.
            time.sleep(1.5 * IDLE)
        work.put(None)
        assert list(answers) == []
