"""What is no message, no JSON, no form of ours: refused by name, at once, and never our fault."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from resight.client.connection import connect
from resight.v1 import gallery_service_pb2
from resight.v1.types_pb2 import Camera

GALLERY = "bodies"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "multipart/form-data; boundary=x"}
CROP = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"
MANY = 1_000_000


@pytest.fixture(scope="module")
def url(service: Any) -> Iterator[str]:
    with connect(service.grpc) as connection:
        connection.gallery.CreateCamera(
            gallery_service_pb2.CreateCameraRequest(
                gallery=GALLERY, camera=Camera(camera_id="door")
            )
        )
    yield f"http://{service.rest}/v1/galleries/{GALLERY}"
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert [line for line in lines if line["level"] in ("error", "critical")] == []


METHODS = {
    "SearchService/Search": "unary_unary",
    "SearchService/SearchBatch": "unary_unary",
    "SearchService/TrackPerson": "unary_unary",
    "EmbedService/Embed": "unary_unary",
    "GalleryService/ListCrops": "unary_unary",
    "GalleryService/IngestCrops": "stream_stream",
    "AdaptationService/StreamAdaptationCrops": "unary_stream",
    "ModelService/RegisterModel": "stream_unary",
}
UNREADABLE = {
    "text that is not UTF-8": b"\x0a\x01\xff",
    "a wrong wire type": b"\xff\xff\xff",
    "cut short": b"\x0a\xff",
    "200,000 open groups": b"\x0b" * 200_000,
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("what", UNREADABLE)
def test_messages_that_cannot_be_read(service: Any, method: str, what: str) -> None:
    with grpc.insecure_channel(service.grpc) as channel:
        make = getattr(channel, METHODS[method])
        call = make(f"/resight.v1.{method}", request_serializer=bytes)
        data: Any = UNREADABLE[what]
        if METHODS[method].startswith("stream"):
            data = iter([data])
        with pytest.raises(grpc.RpcError) as caught:
            list(call(data, timeout=60))  # a message that is answered by one is raised before
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "cannot be read" in caught.value.details()


def search(**changes: Any) -> bytes:
    return json.dumps({"crop_id": CROP} | changes).encode()


def part(name: str, value: bytes, *, file: bool = False) -> bytes:
    kind = b'; filename="x"' if file else b""
    head = b'--x\r\nContent-Disposition: form-data; name="' + name.encode() + b'"' + kind
    return head + b"\r\n\r\n" + value + b"\r\n"


# What is posted where, with which header; the status; and what the answer names.
BODIES: dict[str, tuple[str, bytes, dict[str, str], int, str]] = {
    "a key twice": ("search", b'{"crop_id":"a","crop_id":"b"}', JSON, 400, "crop_id"),
    "a key twice, inside": (
        "search-batch",
        b'{"queries":[{"filter":{"include_zones":["a"],"include_zones":[]}}]}',
        JSON,
        400,
        "include_zones",
    ),
    "bytes that are not UTF-8": ("search", b'{"crop_id":"\xff"}', JSON, 422, "UTF-8"),
    "half a surrogate": ("search", b'{"crop_id":"\\ud800"}', JSON, 422, "JSON"),
    "half a surrogate as a name": ("cameras", b'{"\\udc00":1}', JSON, 422, "JSON"),
    "deep lists": ("search", b"[" * 100_000, JSON, 422, "recursion"),
    "deep lists of a batch": ("search-batch", b"[" * 100_000, JSON, 422, "recursion"),
    "deep lists of a camera": ("cameras", b"[" * 100_000, JSON, 422, "recursion"),
    "nothing": ("search", b"", JSON, 422, "JSON"),
    "null": ("search", b"null", JSON, 422, "body"),
    "no object": ("cameras", b"[]", JSON, 422, "body"),
    "an unknown field": ("search", search(colour="red"), JSON, 422, "colour"),
    "an unknown field, inside": ("search", search(filter={"colour": 1}), JSON, 422, "colour"),
    "an image that is no base64": (
        "search", search(positives=[{"image": "!!!" + "A" * 8}]), JSON, 422, "base64",
    ),
    "an image of a batch in base64 cut short": (
        "search-batch", json.dumps({"queries": [{"positives": [{"image": "QUI"}]}]}).encode(), JSON,
        422, "base64",
    ),
    "another type": ("search", search(), {"content-type": "text/plain"}, 400, "content-type"),
    "no type": ("search", search(), {}, 400, "content-type"),
    "text for a batch": (
        "search-batch", b"{}", {"content-type": "text/plain"}, 400, "content-type",
    ),
    "JSON for a form": ("crops", b"{}", JSON, 400, "multipart/form-data"),
    "a long name": ("cameras", json.dumps({"x" * 100_000: 1}).encode(), JSON, 400, "xxx"),
    "a number out of bounds": ("search", b'{"top_k":' + b"9" * 5000 + b"}", JSON, 422, "number"),
    "a long crop": ("search", search(crop_id="x" * 100_000), JSON, 400, "crop_id"),
    "a long token": ("search", search(page_token="x" * 100_000), JSON, 400, "page_token"),
    "a long zone": (
        "search", search(filter={"include_zones": ["x" * 100_000]}), JSON, 400, "include_zones",
    ),
    "a control character": (
        "search", search(filter={"exclude_track_ids": ["a\0b"]}), JSON, 400, "exclude_track_ids",
    ),
    "an escape sequence": (
        "cameras", json.dumps({"camera_id": "c", "display_name": "\x1b[31m"}).encode(), JSON, 400,
        "display_name",
    ),
    "a million zones": (
        "search", search(filter={"include_zones": ["x"] * MANY}), JSON, 422, "include_zones",
    ),
    "half a million attributes": (
        "search", search(filter={"include_attributes": [{"key": "k"}] * (MANY // 2)}), JSON, 400,
        "fields",
    ),
    "a million examples": (
        "search", search(positives=[{"crop_id": "x"}] * MANY), JSON, 400, "fields",
    ),
    "a million queries": (
        "search-batch", json.dumps({"queries": [{"crop_id": "x"}] * MANY}).encode(), JSON, 400,
        "fields",
    ),
    "half a million unknown fields": (
        "search", json.dumps(dict.fromkeys(map(str, range(MANY // 2)), 1)).encode(), JSON, 400,
        "fields",
    ),
    "no query at all": ("search-batch", b'{"queries":[]}', JSON, 400, "queries"),
    "a form without boundary": (
        "search", b"x", {"content-type": FORM["content-type"][:19]}, 400, "boundary",
    ),
    "a form cut short": ("search", part("image", b"abc", file=True), FORM, 400, "image"),
    "a broken form": ("search", b"--x\r\n\xff\xff\r\n\r\n", FORM, 400, "multipart"),
    "200,000 form fields": (
        "search", part("include_zones", b"z") * 200_000 + b"--x--", FORM, 400, "fields",
    ),
    "2000 files": ("search", part("image", b"z", file=True) * 2000 + b"--x--", FORM, 400, "files"),
    "an unknown form field": (
        "crops", part("colour", b"red") + part("image", b"z", file=True) + b"--x--", FORM, 400,
        "colour",
    ),
    "a form field twice": (
        "crops", part("camera_id", b"door") * 2 + part("image", b"z", file=True) + b"--x--", FORM,
        400, "camera_id",
    ),
    "a threshold twice": (
        "search",
        part("min_score", b"0.9") + part("min_score", b"-1") + part("image", b"z", file=True)
        + b"--x--",
        FORM, 400, "min_score comes twice",
    ),
    "a filter as a file": (
        "search",
        part("include_attributes", b"coat=red", file=True) + part("image", b"z", file=True)
        + b"--x--",
        FORM, 400, "include_attributes is a text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BODIES)
def test_bodies(url: str, what: str) -> None:
    path, body, headers, status, named = BODIES[what]
    answer = httpx.post(f"{url}/{path}", content=body, headers=headers, timeout=60)
    check(answer, status, named)


def check(answer: httpx.Response, status: int, named: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (
        status,
        "application/problem+json",
    ), answer.text[:1000]
    assert named in answer.json()["detail"]
    assert len(answer.text) < 4000  # nothing long is sent back


@pytest.mark.parametrize(
    ("query", "status", "named"),
    [
        ("colour=red", 400, "colour"),
        ("include_zone=hall", 400, "include_zone"),
        ("gallery=other", 400, "gallery"),
        ("include_zones=%FF", 400, "UTF-8"),
        ("include_zones=%ED%A0%80", 400, "UTF-8"),
        ("include_zones=%00", 400, "include_zones"),
        ("page_size=-1", 400, "page_size"),
        ("page_size=x", 422, "page_size"),
        ("page_size=99999999999999999999", 400, "page_size"),
        ("page_token=forged", 400, "page_token"),
        ("page_token=" + "x" * 30_000, 400, "page_token"),
        ("start_time=2026-01-01T00:00:00", 422, "start_time"),
        ("start_time=9999-12-31T23:59:59-23:59", 400, "start_time"),
        ("&".join(["include_zones=z"] * 3000), 400, "include_zones"),
        ("page_size=1&page_size=2", 400, "page_size comes twice"),
        ("start_time=2026-01-01T00:00:00Z&start_time=1999-01-01T00:00:00Z", 400, "start_time"),
    ],
)
def test_queries_of_a_listing(url: str, query: str, status: int, named: str) -> None:
    check(httpx.get(f"{url}/crops?{query}"), status, named)


@pytest.mark.parametrize("seconds", ["nan", "inf", "-1", "0", "1e400", "soon", ""])
def test_times_to_wait(url: str, seconds: str) -> None:
    answer = httpx.post(
        f"{url}/search", content=search(), headers=JSON | {"Resight-Timeout": seconds}
    )
    assert answer.status_code in (400, 422)
    assert "Resight-Timeout" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ("[]", "0 values"),
        (f"[{'1,' * 94}1]", "95 values"),
        (f"[{'0,' * 95}0]", "zeros"),
        (f"[NaN{',1' * 95}]", "NaN"),
        (f"[Infinity{',1' * 95}]", "infinity"),
        (f"[1e300{',1' * 95}]", "infinity"),
        (f"[{'1,' * 65_537}1]", "65536"),
    ],
)
def test_vectors(service: Any, url: str, values: str, named: str) -> None:
    body = f'{{"embedding":{{"values":{values},"model_version":"{service.model}"}}}}'
    for path, sent in (("search", body), ("track", f'{{"query":{body[:-1]},"min_score":0.5}}}}')):
        answer = httpx.post(f"{url}/{path}", content=sent, headers=JSON)
        assert answer.status_code in (400, 422), answer.text
        assert named in answer.json()["detail"]
        assert "embedding.values" in answer.json()["detail"]


def test_rejected_crops_name_their_field(url: str, make_jpeg: Callable[..., bytes]) -> None:
    for changes, field in (
        ({"track_id": "x" * 10_000}, "crop.track_id"),
        # Longer than any text may be: refused before anybody knows what it is for.
        ({"track_id": "x" * 100_000}, "track_id"),
        ({"zone": "\x1b[31m"}, "crop.zone"),
        ({"crop_id": "no"}, "crop.crop_id"),
        ({"attributes": '{"a b":"1"}'}, "crop.attributes"),
        ({"attributes": json.dumps({f"k{n}": "v" for n in range(33)})}, "crop.attributes"),
        ({"attributes": "[" * 10_000}, "attributes"),
        ({"capture_time": "9999-12-31T23:59:59Z"}, "crop.capture_time"),
    ):
        data = {"camera_id": "door", "capture_time": "2026-01-01T00:00:00Z"} | changes
        answer = httpx.post(f"{url}/crops", files={"image": ("x.jpg", make_jpeg(1))}, data=data)
        assert answer.status_code == 400
        assert answer.json()["field"] == field


def test_a_body_as_long_as_allowed_costs_little_memory(service: Any, url: str) -> None:
    def peak() -> int:
        status = Path(f"/proc/{service.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024

    before = peak()
    longest = json.dumps(dict.fromkeys(map(str, range(1_500_000)), 1)).encode()
    assert 18 * 2**20 < len(longest) < 20 * 2**20
    check(httpx.post(f"{url}/search", content=longest, headers=JSON, timeout=60), 400, "fields")
    assert peak() - before < 100
