"""Every REST call against a real process, and that it tells what gRPC tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from resight.v1 import gallery_service_pb2, gallery_service_pb2_grpc

pytestmark = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)

GALLERY = "rest"


@pytest.fixture(scope="module")
def client(service: Any) -> Iterator[httpx.Client]:
    base = f"http://{service.rest}/v1/galleries/{GALLERY}"
    with httpx.Client(base_url=base, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def crops(client: httpx.Client, make_jpeg: Callable[..., bytes]) -> list[str]:
    """Ids of six crops, two cameras, one minute apart."""
    for camera in ("left", "right"):
        answer = client.post("/cameras", json={"camera_id": camera, "zone": "hall"})
        assert answer.status_code == 201
        assert answer.json()["create_time"].endswith("Z")
    ids = []
    for number in range(6):
        answer = post(client, make_jpeg(500 + number), number)
        assert answer.status_code == 201, answer.text
        assert answer.json()["outcome"] == "accepted"
        ids.append(answer.json()["crop_id"])
    return ids


def post(client: httpx.Client, image: bytes, number: int) -> httpx.Response:
    return client.post(
        "/crops",
        files={"image": ("crop.jpg", image)},
        data={
            "camera_id": ("left", "right")[number % 2],
            "capture_time": f"2026-02-01T00:{number:02d}:00+00:00",
            "attributes": '{"hat": "no"}',
        },
    )


def test_the_same_crop_again_is_a_duplicate(
    client: httpx.Client, crops: list[str], make_jpeg: Any
) -> None:
    answer = post(client, make_jpeg(502), 2)
    assert answer.status_code == 200
    assert answer.json() == {"outcome": "duplicate", "crop_id": crops[2]}


def test_reading_what_was_ingested(client: httpx.Client, crops: list[str], make_jpeg: Any) -> None:
    crop = client.get(f"/crops/{crops[3]}").json()
    assert crop["camera_id"] == "right"
    assert crop["capture_time"] == "2026-02-01T00:03:00Z"
    assert crop["zone"] == "hall"
    assert crop["attributes"] == {"hat": "no"}
    image = client.get(f"/crops/{crops[3]}/image")
    assert image.content == make_jpeg(503)
    assert image.headers["content-type"] == "image/jpeg"


def test_listing(client: httpx.Client, crops: list[str]) -> None:
    first = client.get("/crops", params={"page_size": 4}).json()
    rest = client.get(
        "/crops", params={"page_size": 4, "page_token": first["next_page_token"]}
    ).json()
    listed = first["crops"] + rest["crops"]
    assert [crop["crop_id"] for crop in listed] == crops
    assert rest["next_page_token"] == ""
    left = client.get("/crops", params={"include_camera_ids": ["left"]}).json()["crops"]
    assert [crop["crop_id"] for crop in left] == crops[::2]
    late = client.get("/crops", params={"start_time": "2026-02-01T00:04:00Z"}).json()["crops"]
    assert [crop["crop_id"] for crop in late] == crops[4:]
    cameras = client.get("/cameras").json()["cameras"]
    assert [camera["camera_id"] for camera in cameras] == ["left", "right"]


def test_three_ways_to_search_agree(client: httpx.Client, crops: list[str], make_jpeg: Any) -> None:
    files = {"image": ("query.jpg", make_jpeg(501))}
    embedded = client.post("/embed", files=files).json()
    assert np.linalg.norm(embedded["values"]) == pytest.approx(1, abs=1e-5)
    by_image = client.post("/search", files=files, data={"top_k": "6"}).json()
    vector = {"values": embedded["values"], "model_version": embedded["model_version"]}
    by_vector = client.post("/search", json={"embedding": vector, "top_k": 6}).json()
    assert ids(by_image) == ids(by_vector)
    assert ids(by_image)[0] == crops[1]
    by_crop = client.post("/search", json={"crop_id": crops[1], "top_k": 6}).json()
    assert ids(by_crop) == ids(by_image)[1:]
    assert by_crop["rows_total"] == 6
    assert by_crop["mode"] in {"exact_scan", "exact_gather"}


def test_filters_of_a_form_and_of_json_agree(
    client: httpx.Client, crops: list[str], make_jpeg: Any
) -> None:
    form = client.post(
        "/search",
        files={"image": ("query.jpg", make_jpeg(501))},
        data={"exclude_camera_ids": ["left"], "end_time": "2026-02-01T00:05:00Z"},
    ).json()
    assert set(ids(form)) == {crops[1], crops[3]}
    body = {
        "crop_id": crops[0],
        "filter": {
            "exclude_camera_ids": ["left"],
            "capture_range": {"end_time": "2026-02-01T00:05:00Z"},
        },
    }
    assert set(ids(client.post("/search", json=body).json())) == {crops[1], crops[3]}


def test_delete_and_stats_over_both_transports(
    service: Any, client: httpx.Client, crops: list[str], make_jpeg: Any
) -> None:
    extra = post(client, make_jpeg(599), 9).json()["crop_id"]
    assert client.get("/stats").json()["searchable"] == 7
    assert client.delete(f"/crops/{extra}").status_code == 204
    assert client.get(f"/crops/{extra}").status_code == 404
    stats = client.get("/stats").json()
    assert stats["crops"] == stats["searchable"] == 6
    with grpc.insecure_channel(service.grpc) as channel:
        stub = gallery_service_pb2_grpc.GalleryServiceStub(channel)
        same = stub.GetGalleryStats(gallery_service_pb2.GetGalleryStatsRequest(gallery=GALLERY))
    assert (same.crops, same.model_version) == (6, stats["model_version"])


def test_a_slash_too_many_is_another_path_and_sends_nobody_elsewhere(service: Any) -> None:
    for path in ("/v1/keys/", "/v1/galleries/rest/crops/", "/healthz/", "/metrics/"):
        found = httpx.get(f"http://{service.rest}{path}", headers={"Host": "elsewhere.example"})
        assert found.status_code == 404, path
        assert "location" not in found.headers


def test_probes_metrics_and_openapi(service: Any, client: httpx.Client, crops: list[str]) -> None:
    client.post("/search", json={"crop_id": crops[0]})
    root = f"http://{service.rest}"
    assert httpx.get(f"{root}/healthz").json() == {"status": "alive"}
    assert httpx.get(f"{root}/readyz").json() == {"status": "ready"}
    text = httpx.get(f"{root}/metrics").text
    for name in (
        'resight_requests_total{code="201",method="POST /v1/galleries/{gallery}/crops",'
        'protocol="rest"}',
        'method="POST /v1/galleries/{gallery}/search"',
        f'resight_gallery_vectors{{gallery="rest",model_version="{service.model}"}} 6.0',
        'resight_gallery_unready{gallery="rest",refuses="searches"} 0.0',
        'resight_gallery_unready{gallery="rest",refuses="crops"} 0.0',
        'resight_stage_duration_seconds_count{stage="decode"}',
        'resight_stage_duration_seconds_count{stage="queue"}',
        'resight_stage_duration_seconds_count{stage="embed"}',
        'resight_stage_duration_seconds_count{stage="search"}',
        'resight_stage_duration_seconds_count{stage="db"}',
        'resight_ingested_total{outcome="accepted"}',
        "resight_search_mode_total",
        "resight_batch_size_bucket",
        'resight_model_info{model_version="' + service.model,
        "resight_event_loop_lag_seconds_bucket",
        "resight_ready 1.0",
    ):
        assert name in text, name
    assert not [line for line in text.splitlines() if crops[0] in line]
    schema = httpx.get(f"{root}/v1/openapi.json").json()
    assert {path.removeprefix("/v1/galleries/{gallery}") for path in schema["paths"]} == {
        "/cameras", "/crops", "/crops/{crop_id}", "/crops/{crop_id}/image", "/embed", "/search",
        "/search-batch", "/track", "/travel-times", "/verify",
        "/stats", "/models", "/models/{model_version}", "/models/rollback",
        "/models/{model_version}/stage", "/models/{model_version}/promote",
        "/models/{model_version}/retire", "/models/{model_version}/filling/pause",
        "/models/{model_version}/filling/resume",
        "/adaptation-runs", "/adaptation-runs/{run_id}", "/adaptation-runs/{run_id}/crops",
        "/adaptation-runs/{run_id}/stream", "/adaptation-runs/{run_id}/heartbeat",
        "/adaptation-runs/{run_id}/report", "/adaptation-runs/{run_id}/finish",
        "/adaptation-runs/{run_id}/check", "/cameras/{camera_id}/retention",
        "/erasures", "/erasures/{erasure_id}", "/erasures/{erasure_id}/crops",
        "/erasures/{erasure_id}/confirm", "/erasures/{erasure_id}/cancel",
        "/v1/audit", "/v1/audit/verify", "/v1/keys", "/v1/keys/{key_id}/revoke",
    }  # fmt: skip
    assert "Problem" in schema["components"]["schemas"]


def ids(answer: dict[str, Any]) -> list[str]:
    return [match["crop"]["crop_id"] for match in answer["matches"]]
