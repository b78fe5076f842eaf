"""Bad input gets an error that names the field and the fix, over both transports."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from resight.client.connection import Connection, connect
from resight.v1 import embed_service_pb2, gallery_service_pb2, search_service_pb2
from resight.v1.types_pb2 import Camera, CropFilter, Embedding, TimeRange

GALLERY = "bad"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


@pytest.fixture(scope="module")
def connection(service: Any) -> Iterator[Connection]:
    with connect(service.grpc) as connection:
        connection.gallery.CreateCamera(
            gallery_service_pb2.CreateCameraRequest(
                gallery=GALLERY, camera=Camera(camera_id="door")
            )
        )
        yield connection


@pytest.fixture(scope="module")
def url(service: Any, connection: Connection) -> str:
    return f"http://{service.rest}/v1/galleries/{GALLERY}"


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims its size and holds almost nothing: a decompression bomb's visiting card."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = (
        chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def truncated_jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 128), 90).save(buffer, "JPEG")
    return buffer.getvalue()[:-600]


BAD_IMAGES = {
    "empty": (b"", "INVALID_ARGUMENT", 400),
    "text": (b"GET / HTTP/1.1\r\n\r\n", "UNDECODABLE_IMAGE", 422),
    "truncated": (truncated_jpeg(), "UNDECODABLE_IMAGE", 422),
    "100 megapixels": (png_header(10_000, 10_000), "IMAGE_TOO_LARGE", 413),
    "one pixel": (png_header(1, 1), "UNDECODABLE_IMAGE", 422),
    "21 MiB": (b"\xff\xd8\xff" + bytes(21 * 1024 * 1024 - 200_000), "IMAGE_TOO_LARGE", 413),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_over_grpc(connection: Connection, name: str) -> None:
    image, reason, _ = BAD_IMAGES[name]
    for call in (
        lambda: connection.embed.Embed(
            embed_service_pb2.EmbedRequest(gallery=GALLERY, image=image)
        ),
        lambda: connection.search.Search(
            search_service_pb2.SearchRequest(gallery=GALLERY, image=image)
        ),
    ):
        error = failure(call)
        assert error.code() is INVALID
        violation = bad_request(error)
        assert (violation.field, violation.reason) == ("image", reason)
        assert violation.description == error.details()


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_over_rest(url: str, name: str) -> None:
    image, reason, status = BAD_IMAGES[name]
    for path in ("embed", "search"):
        answer = httpx.post(f"{url}/{path}", files={"image": ("x.jpg", image)})
        check_problem(answer, status)
        assert answer.json()["reason"] == reason


def stamp(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"top_k": 0}, INVALID, "top_k"),
        ({"top_k": -1}, INVALID, "top_k"),
        ({"top_k": 10**9}, INVALID, "top_k"),
        ({"min_score": 1.5}, INVALID, "min_score"),
        ({"min_score": float("nan")}, INVALID, "min_score"),
        ({"filter": CropFilter(include_camera_ids=["cellar"])}, grpc.StatusCode.NOT_FOUND, ""),
        (
            {"filter": CropFilter(exclude_camera_ids=["no good"])},
            INVALID,
            "filter.exclude_camera_ids",
        ),
        (
            {
                "filter": CropFilter(
                    capture_range=TimeRange(start_time=stamp(2000), end_time=stamp(1000))
                )
            },
            INVALID,
            "filter.capture_range",
        ),
        (
            {"filter": CropFilter(capture_range=TimeRange(start_time=stamp(2**62)))},
            INVALID,
            "filter.capture_range.start_time",
        ),
        ({"gallery": "Not A Name"}, INVALID, "gallery"),
        ({"gallery": "nowhere"}, grpc.StatusCode.NOT_FOUND, ""),
        ({"image": b"", "crop_id": "no-uuid"}, INVALID, "crop_id"),
        (
            {"image": b"", "crop_id": "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"},
            grpc.StatusCode.NOT_FOUND,
            "",
        ),
        (
            {"embedding": Embedding(values=b"1234567", dimension=2, model_version="x")},
            INVALID,
            "embedding.values",
        ),
        (
            {"embedding": Embedding(values=b"12345678", dimension=2, model_version="other")},
            grpc.StatusCode.FAILED_PRECONDITION,
            "",
        ),
    ],
)
def test_bad_searches(
    connection: Connection,
    make_jpeg: Callable[..., bytes],
    changes: dict[str, Any],
    code: grpc.StatusCode,
    field: str,
) -> None:
    fields = {"gallery": GALLERY, "image": make_jpeg(1)} | changes
    if "crop_id" in fields or "embedding" in fields:
        del fields["image"]
    error = failure(lambda: connection.search.Search(search_service_pb2.SearchRequest(**fields)))
    assert error.code() is code
    if field:
        assert bad_request(error).field == field


def test_a_search_for_nothing(connection: Connection) -> None:
    error = failure(
        lambda: connection.search.Search(search_service_pb2.SearchRequest(gallery=GALLERY))
    )
    assert error.code() is INVALID
    assert "image" in error.details()


def test_bad_rest_requests_are_problems(url: str, make_jpeg: Callable[..., bytes]) -> None:
    image = {"image": ("x.jpg", make_jpeg(2))}
    root = url.partition("/v1")[0]
    cases = [
        (httpx.get(f"{root}/nowhere"), 404),
        (httpx.put(f"{url}/search"), 405),
        (
            httpx.post(f"{url}/search", content=b"{", headers={"content-type": "application/json"}),
            422,
        ),
        (httpx.post(f"{url}/search", json={"crop_id": "x", "colour": "red"}), 422),
        (httpx.post(f"{url}/search", content=b"x", headers={"content-type": "text/plain"}), 400),
        (httpx.post(f"{url}/search", files=image, data={"top_k": "many"}), 422),
        (httpx.post(f"{url}/search", files=image, data={"top_k": "0"}), 400),
        (httpx.post(f"{url}/search", files=image, data={"colour": "red"}), 400),
        (httpx.post(f"{url}/search", data={"image": "no file"}), 400),
        (
            httpx.post(
                f"{url}/search",
                files=image,
                data={"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-01-01T00:00:00Z"},
            ),
            400,
        ),
        (httpx.post(f"{url}/search", files=image, data={"start_time": "2026-01-02"}), 422),
        (httpx.post(f"{url}/embed", files=image, headers={"Resight-Timeout": "-1"}), 400),
        (httpx.post(f"{url}/cameras", json={"camera_id": "a b"}), 400),
        (httpx.post(f"{url}/cameras", json={}), 422),
        (httpx.get(f"{url}/cameras?page_size=100000"), 400),
        (httpx.get(f"{url}/crops?page_token=forged"), 400),
        (httpx.get(f"{url}/crops/not-a-uuid"), 400),
        (httpx.delete(f"{url}/crops/0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"), 404),
        (httpx.post(f"{url}/crops", files=image, data={"camera_id": "door"}), 422),
        (ingest(url, image, camera_id="cellar"), 404),
        (ingest(url, image, capture_time="1970-01-01T00:00:00Z"), 400),
        (ingest(url, image, attributes="[1]"), 400),
        (ingest(url, {"image": ("x.jpg", b"no image")}), 422),
    ]
    for answer, status in cases:
        check_problem(answer, status)


def ingest(url: str, files: Any, **changes: str) -> httpx.Response:
    data = {"camera_id": "door", "capture_time": "2026-01-01T00:00:00Z"} | changes
    return httpx.post(f"{url}/crops", files=files, data=data)


def test_a_body_without_end_is_cut_off_while_it_streams(service: Any, url: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
        while sent < 400:
            sent += 1
            yield bytes(1024 * 1024)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    try:
        answer = httpx.post(f"{url}/embed", content=endless(), headers=headers)
    except httpx.WriteError:
        pass  # the service has answered and hung up while we were still sending
    else:
        check_problem(answer, 413)
    assert sent < 100
    assert httpx.get(f"http://{service.rest}/healthz").status_code == 200


def check_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, (answer.request.url, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["detail"]
    assert body["title"]
    assert body["instance"] == answer.request.url.path


def failure(call: Callable[[], Any]) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def bad_request(error: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None
    for packed in status.details:
        if packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            message = error_details_pb2.BadRequest()
            packed.Unpack(message)
            return message.field_violations[0]
    raise AssertionError(f"no BadRequest in {status}")
