"""Every text, list, map and bytes field of the API with absurdly much in it: refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from resight.v1 import adaptation_service_pb2 as adaptation
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from service.transport.text_limit import MAX_TEXT
from tests.e2e.conftest import jpeg
from tests.e2e.rpcs import RPCS, Answer, call, fields, is_map
from tests.fuzz.conftest import GALLERY, Target, count

# Bounds are the same for everybody; with keys there is one more header.
pytestmark = pytest.mark.parametrize("target", ["with keys"], indirect=True)

UUID = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"
Path = tuple[FieldDescriptor, ...]
# Of what must exist first; each has the bound of every page token (tests/fuzz/test_tokens.py), of
# the field beside it, or of a message.
BEHIND = {
    "AdaptationService/ListAdaptationRunCrops page_token",
    "AdaptationService/ReportAdaptationRun replay_crop_ids",
    "AdaptationService/StreamAdaptationCrops cursor",
    "AdminService/ListErasureCrops page_token",
    "ModelService/RegisterModel chunk",
}
MANY, LONG = 150_000, 150_000
# Where what is asked for must be well formed before the field is looked at.
BASES: dict[str, Message] = {
    "AdaptationService/FinishAdaptationRun": adaptation.FinishAdaptationRunRequest(
        run_id=UUID, lease_token=UUID, state=adaptation.AdaptationRun.STATE_FAILED
    ),
    "AdminService/CreateApiKey": admin.CreateApiKeyRequest(
        api_key=admin.ApiKey(display_name="x", scopes=[1])
    ),
    "AdminService/CreateErasure": admin.CreateErasureRequest(reason="x"),
    "GalleryService/CreateCamera": gallery.CreateCameraRequest(camera=Camera(camera_id="x")),
    "GalleryService/IngestCrops": gallery.IngestCropsRequest(
        image=jpeg(90), crop=Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_300_000))
    ),
    "ModelService/RegisterModel": models.RegisterModelRequest(
        upload=models.ModelUpload(sha256=hashlib.sha256(b"x").digest(), size_bytes=1)
    ),
    "SearchService/Search": search.SearchRequest(crop_id=UUID),
    "SearchService/SearchBatch": search.SearchBatchRequest(
        queries=[search.SearchRequest(crop_id=UUID)]
    ),
    "SearchService/TrackPerson": search.TrackPersonRequest(
        query=search.SearchRequest(crop_id=UUID, min_score=0.5)
    ),
}


def paths(descriptor: Descriptor, before: Path = ()) -> Iterator[Path]:
    for field in descriptor.fields:
        path = (*before, field)
        kind = field.message_type
        if is_map(field) or field.is_repeated or field.type in (
            FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES,
        ):  # fmt: skip
            yield path
        inside = kind is not None and not is_map(field) and len(path) < 5
        if inside and not kind.full_name.startswith("google."):
            yield from paths(kind, path)


def put(message: Any, path: Path) -> None:
    for field in path[:-1]:
        inner = getattr(message, field.name)
        message = (inner[0] if len(inner) else inner.add()) if field.is_repeated else inner
        message.SetInParent()
    field = path[-1]
    held = getattr(message, field.name)
    if is_map(field):
        for number in range(50_000):
            held[f"k{number}"] = "v"
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        for _ in range(MANY):
            held.add()
    elif field.is_repeated:
        texts = field.type == FieldDescriptor.TYPE_STRING
        held.extend([f"a{number}" if texts else 1 for number in range(MANY)])
    elif field.type == FieldDescriptor.TYPE_STRING:
        setattr(message, field.name, "a" * LONG)
    else:
        setattr(message, field.name, b"a" * (21 * 2**20))


def told(answer: Answer) -> tuple[str, str]:
    """The field that is named as wrong, and the message."""
    if answer.code is grpc.StatusCode.OK:
        first = answer.responses[0]
        if isinstance(first, gallery.IngestCropsResponse):
            return first.reason, first.message
        failed = first.results[0].error if isinstance(first, search.SearchBatchResponse) else None
        return ("", failed.message) if failed is not None else ("", "")
    for key, value in answer.trailing:
        if key == "grpc-status-details-bin":
            assert len(value) < 8000, "more than the metadata that a client takes"
            return _field(status_pb2.Status.FromString(value)), answer.details
    return "", answer.details


def _field(status: Any) -> str:
    for detail in status.details:
        request = error_details_pb2.BadRequest()
        if detail.Unpack(request):
            return str(request.field_violations[0].field)
    return ""


FIELDS = [(name, path) for name, rpc in RPCS.items() for path in paths(rpc.request.DESCRIPTOR)]


@pytest.fixture(scope="module")
def channel(target: Target) -> Iterator[grpc.Channel]:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target.service.grpc, options=options) as made:
        yield made


def test_every_field_has_a_bound(
    target: Target, channel: grpc.Channel, request: pytest.FixtureRequest
) -> None:
    taken, unnamed = [], []
    for name, path in FIELDS:
        rpc = RPCS[name]
        message = rpc.request()
        if name in BASES:
            message.CopyFrom(BASES[name])
        put(message, path)
        count("fields with far too much in them")
        label = f"{name} {'.'.join(field.name for field in path)}"
        answer = call(
            channel,
            rpc,
            [message.SerializeToString()],
            timeout=60,
            metadata=tuple(target.headers.items()),
        )
        assert answer.code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), label
        field, words = told(answer)
        if answer.code is grpc.StatusCode.OK and not words:
            taken.append(label)
        elif label not in BEHIND and not any(part.name in field + words for part in path):
            unnamed.append(f"{label}: {answer.code.name} {field} {words[:100]}")
    # Said by the service alone, and not looked at where a caller sends it.
    assert taken == ["GalleryService/IngestCrops crop.sha256"]
    assert unnamed == [], "\n".join(unnamed)
    assert len(FIELDS) > 150
    assert fields(message)


def test_rest_bounds_the_number_of_headers(target: Target) -> None:
    """Without httpx, which takes half a minute for as many."""
    count("fields with far too much in them")
    connection = HTTPConnection(target.service.rest, timeout=60)
    connection.putrequest("GET", f"/v1/galleries/{GALLERY}/crops")
    for name, value in target.headers.items():
        connection.putheader(name, value)
    for number in range(20_000):
        connection.putheader(f"x-{number}", "a")
    try:
        connection.endheaders()
        answer = connection.getresponse()
    except (ConnectionError, HTTPException):
        # Answered 400 before it has been read, and the connection closed.
        return
    finally:
        connection.close()
    assert 400 <= answer.status < 500


@pytest.mark.parametrize("where", ["query", "header", "path", "form", "json"])
def test_rest_has_the_same_bounds(target: Target, where: str) -> None:
    long = "a" * 30_000
    count("fields with far too much in them")
    ask: dict[str, dict[str, Any]] = {
        "query": {"params": {"page_token": "", "camera_id": long}},
        "header": {"headers": {"resight-purpose": "a" * 200_000}},
        "path": {},
        "form": {"files": {"image": jpeg(1)}, "data": {"camera_id": long}},
        "json": {"json": {"crop_id": long}},
    }
    more = ask[where]
    more["headers"] = target.headers | more.get("headers", {})
    verb = "POST" if where in ("form", "json") else "GET"
    path = {"form": "/crops", "json": "/search", "path": f"/crops/{'a' * 60_000}"}.get(
        where, "/crops"
    )
    try:
        answer = httpx.request(verb, f"{target.url}{path}", timeout=120, **more)
    except (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError):
        # A head beyond 64 KiB is answered 400 before it has been read, and the connection closed.
        assert where in ("header", "path")
        return
    assert 400 <= answer.status_code < 500
    assert len(answer.content) < 4000 or where == "path"
    if where in ("form", "json"):
        assert answer.json()["reason"] == "TEXT_TOO_LONG"
        assert str(MAX_TEXT) in answer.json()["detail"]
