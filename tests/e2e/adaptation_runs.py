"""Adaptation runs of a service, taken and kept by the calls of the API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from resight.bundle import pack
from resight.client.connection import Connection
from resight.v1 import adaptation_service_pb2 as pb
from resight.v1 import model_service_pb2 as models_pb
from resight.v1.gallery_service_pb2 import CreateCameraRequest, IngestCropsRequest
from resight.v1.types_pb2 import Camera, Crop

State = pb.AdaptationRun.State


def fill(connection: Connection, images: list[bytes], gallery: str = "") -> list[str]:
    """Crops of two cameras; their ids in the order of their storing."""
    for camera in ("a", "b"):
        connection.gallery.CreateCamera(
            CreateCameraRequest(gallery=gallery, camera=Camera(camera_id=camera))
        )
    ids = []
    for number, image in enumerate(images):
        crop = Crop(
            camera_id="ab"[number % 2], capture_time=Timestamp(seconds=1_767_225_600 + number)
        )
        item = IngestCropsRequest(gallery=gallery, sequence=number, crop=crop, image=image)
        (answer,) = connection.gallery.IngestCrops(iter([item]))
        ids.append(answer.crop_id)
    return ids


def start(
    connection: Connection, gallery: str = "", seconds: float = 600, holder: str = "test"
) -> pb.StartAdaptationRunResponse:
    lease = Duration(seconds=int(seconds), nanos=int(seconds % 1 * 1e9))
    request = pb.StartAdaptationRunRequest(gallery=gallery, holder=holder, lease_duration=lease)
    return connection.adaptation.StartAdaptationRun(request)


def held(started: Any, gallery: str = "") -> dict[str, str]:
    return {
        "gallery": gallery,
        "run_id": started.run.run_id,
        "lease_token": started.lease_token,
    }


def reason(error: grpc.RpcError) -> str:
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


@contextmanager
def refused(code: grpc.StatusCode, why: str) -> Iterator[None]:
    """The call inside is refused in just this way."""
    with pytest.raises(grpc.RpcError) as caught:
        yield
    assert (caught.value.code(), reason(caught.value)) == (code, why)


def archive_of(bundle: Path, folder: Path) -> bytes:
    path = folder / "bundle.tar"
    pack(bundle, path)
    return path.read_bytes()


def uploaded(archive: bytes, piece: int = 700, **announced: Any) -> Iterator[Any]:
    told = {"sha256": hashlib.sha256(archive).digest(), "size_bytes": len(archive)}
    yield models_pb.RegisterModelRequest(upload=models_pb.ModelUpload(**(told | announced)))
    for begin in range(0, len(archive), piece):
        yield models_pb.RegisterModelRequest(chunk=archive[begin : begin + piece])
