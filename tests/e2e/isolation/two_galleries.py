"""Two galleries with the same cameras, ids and images, and what only one of them has."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from resight.bundle import open_bundle, pack
from resight.client.connection import Connection, connect
from resight.v1 import adaptation_service_pb2 as runs
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1.types_pb2 import Camera, Crop, CropFilter

OURS, THEIRS = "ours", "theirs"
START = 1_767_225_600
SHARED = 12  # crops of both, under the same ids
SECRET = 8  # crops of theirs alone
THEIR_CAMERA = "vault"
Accepted = gallery.IngestCropsResponse.OUTCOME_ACCEPTED


class Sites(NamedTuple):
    """The two galleries behind one service."""

    service: Any
    connection: Connection
    shared: list[str]
    secret: list[str]
    image: Callable[[int], bytes]
    our_run: dict[str, str]
    their_run: dict[str, str]
    their_model: str

    def url(self, name: str = OURS) -> str:
        return f"http://{self.service.rest}/v1/galleries/{name}"


def shared_image(make_jpeg: Callable[[int], bytes], name: str, number: int) -> bytes:
    """The even crops are of one image in both galleries, the odd ones of another in each."""
    return make_jpeg(7000 + number + (100 if number % 2 and name == THEIRS else 0))


@contextmanager
def two_galleries(service: Any, make_jpeg: Callable[[int], bytes], bundle: Path) -> Iterator[Sites]:
    """Made on a running service; the bundle becomes a candidate of one of them."""
    with connect(service.grpc) as connection:
        for name, cameras in ((OURS, ["door", "hall"]), (THEIRS, ["door", "hall", THEIR_CAMERA])):
            for camera in cameras:
                connection.gallery.CreateCamera(
                    gallery.CreateCameraRequest(
                        gallery=name, camera=Camera(camera_id=camera, display_name=f"{name}-door")
                    )
                )
        shared = [str(UUID(int=number + 1)) for number in range(SHARED)]
        secret = [str(UUID(int=number + 1000)) for number in range(SECRET)]
        # Both galleries and every item in one stream.
        items = [
            item(name, number, shared[number], shared_image(make_jpeg, name, number))
            for number in range(SHARED)
            for name in (OURS, THEIRS)
        ]
        items += [
            item(
                THEIRS, number + 1000, secret[number], make_jpeg(7500 + number),
                camera=THEIR_CAMERA, zone="strongroom", attributes={"coat": "ermine"},
                track=f"thief{number // 4}",
            )
            for number in range(SECRET)
        ]  # fmt: skip
        for place, request in enumerate(items):
            request.sequence = place
        answers = list(connection.gallery.IngestCrops(iter(items)))
        assert {answer.outcome for answer in answers} == {Accepted}, "the other's crop was seen"
        assert len(answers) == 2 * SHARED + SECRET
        our_run, their_run = begun(connection, OURS), begun(connection, THEIRS)
        register(connection, bundle, their_run)
        yield Sites(
            service, connection, shared, secret, make_jpeg, our_run, their_run,
            open_bundle(bundle).model_version,
        )  # fmt: skip


def item(
    name: str, number: int, crop_id: str, image: bytes, *, camera: str = "", zone: str = "",
    track: str = "", attributes: dict[str, str] | None = None,
) -> Any:  # fmt: skip
    crop = Crop(
        crop_id=crop_id, camera_id=camera or ("door", "hall")[number % 2], zone=zone,
        track_id=track or f"t{number // 4}", attributes=attributes or {},
        capture_time=Timestamp(seconds=START + number),
    )  # fmt: skip
    return gallery.IngestCropsRequest(gallery=name, sequence=number, crop=crop, image=image)


def begun(connection: Connection, name: str) -> dict[str, str]:
    """A run that holds its gallery's lease, though the other gallery's is held."""
    started = connection.adaptation.StartAdaptationRun(
        runs.StartAdaptationRunRequest(
            gallery=name, holder=f"{name}-night", lease_duration=Duration(seconds=600)
        )
    )
    return {"gallery": name, "run_id": started.run.run_id, "lease_token": started.lease_token}


def register(connection: Connection, bundle: Path, run: dict[str, str]) -> None:
    archive = bundle.with_suffix(".tar")
    pack(bundle, archive)
    data = archive.read_bytes()
    gate = models.GateVerdict(outcome=models.GateVerdict.OUTCOME_PASSED, score=0.5)
    upload = models.ModelUpload(
        **run, sha256=hashlib.sha256(data).digest(), size_bytes=len(data), gate=gate
    )
    connection.models.RegisterModel(
        iter([models.RegisterModelRequest(upload=upload), models.RegisterModelRequest(chunk=data)])
    )


def listed(sites: Sites, name: str, **chosen: Any) -> list[str]:
    answer = sites.connection.gallery.ListCrops(
        gallery.ListCropsRequest(gallery=name, page_size=1000, filter=CropFilter(**chosen))
    )
    return [crop.crop_id for crop in answer.crops]
