"""What a call is about, as the audit has it from its message, its path or its body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resight.v1.admin_service_pb2 import RevokeApiKeyRequest
from resight.v1.gallery_service_pb2 import CreateCameraRequest, DeleteCropRequest
from resight.v1.model_service_pb2 import ModelUpload, RegisterModelRequest, RetireModelRequest
from resight.v1.search_service_pb2 import SearchRequest
from resight.v1.types_pb2 import Camera
from service import call
from service.call import Call
from service.domain.principal import LOCAL
from service.transport.subjects import SUBJECTS, note_fields, note_message
from tests.e2e.access_table import ROUTES
from tests.e2e.rpcs import RPCS

CROP = "0198C0DE5A5A700080003F1A2B3C4D5E"
AS_NOTED = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"


@pytest.fixture
def begin() -> Iterator[Any]:
    def begun(method: str) -> Call:
        now = Call("grpc", method, principal=LOCAL)
        call.begin(now)
        return now

    yield begun
    call.begin(call.OWN)


@pytest.mark.parametrize(
    ("method", "message", "noted"),
    [
        ("GalleryService/DeleteCrop", DeleteCropRequest(crop_id=CROP), {"crop_id": AS_NOTED}),
        ("GalleryService/DeleteCrop", DeleteCropRequest(crop_id="../etc"), {}),
        ("GalleryService/DeleteCrop", DeleteCropRequest(), {}),
        (
            "GalleryService/CreateCamera",
            CreateCameraRequest(camera=Camera(camera_id="door")),
            {"camera_id": "door"},
        ),
        (
            "ModelService/RegisterModel",
            RegisterModelRequest(upload=ModelUpload(run_id=CROP)),
            {"run_id": AS_NOTED},
        ),
        ("ModelService/RegisterModel", RegisterModelRequest(chunk=b"x"), {}),
        ("ModelService/RetireModel", RetireModelRequest(model_version="a b"), {}),
        ("AdminService/RevokeApiKey", RevokeApiKeyRequest(key_id="0" * 33), {}),
        # Noted by the search itself, as what it is.
        ("SearchService/Search", SearchRequest(crop_id=CROP), {}),
    ],
)
def test_a_message_is_noted_by_what_it_names(
    begin: Any, method: str, message: Any, noted: dict[str, str]
) -> None:
    now = begin(method)
    note_message(message)
    assert now.notes == noted


def test_a_body_is_noted_by_what_it_names_and_by_nothing_else(begin: Any) -> None:
    now = begin("ModelService/RollbackModel")
    note_fields({"model_version": "0123456789abcdef", "reason": "worse", "crop_id": CROP})
    note_fields({"model_version": ["x"]})
    note_fields({"model_version": 7})
    assert now.notes == {"leaving": "0123456789abcdef"}


def test_whatever_a_path_names_is_noted() -> None:
    for route, rpc in ROUTES.items():
        named = {part[1:-1] for part in route.split("/") if part.startswith("{")} - {"gallery"}
        told = {SUBJECTS[rpc].field} if rpc in SUBJECTS else set()
        assert named <= told, route


def test_every_subject_is_a_field_of_its_message() -> None:
    for rpc, subject in SUBJECTS.items():
        fields = RPCS[rpc].request.DESCRIPTOR.fields_by_name
        if subject.inside:
            fields = fields[subject.inside].message_type.fields_by_name
        # The one crop that REST takes is one of a stream.
        assert subject.field in fields or rpc == "GalleryService/IngestCrops", rpc
