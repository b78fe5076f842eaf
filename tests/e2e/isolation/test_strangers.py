"""From one gallery, every way to reach what is in another.

What belongs to the other gallery must look, over each call and both transports, exactly like what
does not exist: the same status, reason and words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from http.client import HTTPConnection
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.rpc.error_details_pb2 import RequestInfo
from grpc_status import rpc_status

from resight.v1 import adaptation_service_pb2 as runs
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from tests.e2e.isolation.stranger import KINDS, NO_CAMERA, NOBODY
from tests.e2e.isolation.two_galleries import (
    OURS,
    SECRET,
    SHARED,
    THEIR_CAMERA,
    THEIRS,
    Sites,
    listed,
)

pytestmark = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)


def outcome(call: Callable[[], Any], *hidden: str) -> str:
    """What a caller learns: the answer or the error with all its details, the ids that differ and
    that of the request left out.
    """
    try:
        answer = call()
        told = str(answer if hasattr(answer, "DESCRIPTOR") else list(answer))
    except grpc.RpcError as error:
        status = rpc_status.from_call(error)
        for detail in status.details:
            request = RequestInfo()
            if detail.Unpack(request):
                assert len(request.request_id) == len(uuid4().hex)
                detail.Pack(RequestInfo())
        told = f"{error.code()} {error.details()} {status}"
    for name in hidden:
        told = told.replace(name, "ID")
    return told


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_theirs_looks_like_what_does_not_exist(sites: Sites, kind: str) -> None:
    calls, names = KINDS[kind]
    theirs, nothing = names(sites)
    assert len(theirs) == len(nothing)  # packed details hold lengths
    for way, call in calls(sites, theirs).items():
        told = outcome(call, theirs)
        assert told == outcome(calls(sites, nothing)[way], nothing), way
        assert "matches {" not in told, way
    # Nothing of it happened to them.
    assert len(listed(sites, THEIRS)) == SHARED + SECRET
    run = sites.connection.adaptation.GetAdaptationRun(
        runs.GetAdaptationRunRequest(gallery=THEIRS, run_id=sites.their_run["run_id"])
    ).run
    assert run.state == runs.AdaptationRun.STATE_RUNNING


def test_what_is_theirs_looks_like_what_does_not_exist_over_rest(sites: Sites) -> None:
    ours = sites.url()

    def ways(crop_id: str, camera: str, run: str, model: str) -> dict[str, httpx.Response]:
        lease = {"Resight-Lease": sites.their_run["lease_token"]}
        form = {"camera_id": camera, "capture_time": "2026-01-01T00:00:00Z"}
        image = {"image": ("x.jpg", sites.image(7500))}
        own = {"filter": {"include_camera_ids": [camera]}}
        example = {"positives": [{"crop_id": crop_id}]}
        return {
            "get": httpx.get(f"{ours}/crops/{crop_id}"),
            "image": httpx.get(f"{ours}/crops/{crop_id}/image"),
            "delete": httpx.delete(f"{ours}/crops/{crop_id}"),
            "search": httpx.post(f"{ours}/search", json={"crop_id": crop_id}),
            "example": httpx.post(f"{ours}/search", json=example),
            "batch": httpx.post(f"{ours}/search-batch", json={"queries": [{"crop_id": crop_id}]}),
            "track": httpx.post(
                f"{ours}/track", json={"query": {"crop_id": crop_id, "min_score": 0.0}}
            ),
            "filter": httpx.post(f"{ours}/search", json={"crop_id": sites.shared[0]} | own),
            "list": httpx.get(f"{ours}/crops", params={"include_camera_ids": camera}),
            "ingest": httpx.post(f"{ours}/crops", data=form, files=image),
            "run": httpx.get(f"{ours}/adaptation-runs/{run}"),
            "run's crops": httpx.get(f"{ours}/adaptation-runs/{run}/crops"),
            "run's stream": httpx.get(f"{ours}/adaptation-runs/{run}/stream", headers=lease),
            "heartbeat": httpx.post(
                f"{ours}/adaptation-runs/{run}/heartbeat", json={}, headers=lease
            ),
            "finish": httpx.post(
                f"{ours}/adaptation-runs/{run}/finish", json={"state": "failed"}, headers=lease
            ),
            "model": httpx.get(f"{ours}/models/{model}"),
        }

    theirs = (sites.secret[2], THEIR_CAMERA, sites.their_run["run_id"], sites.their_model)
    nothing = (NOBODY, NO_CAMERA, NOBODY, "0" * len(sites.their_model))
    found, expected = ways(*theirs), ways(*nothing)
    for way, answer in found.items():
        told, wanted = answer.text, expected[way].text
        for name, other in zip(theirs, nothing, strict=True):
            told, wanted = told.replace(name, "ID"), wanted.replace(other, "ID")
        # Each request has an id of its own.
        told, wanted = (re.sub(r'"request_id":"[0-9a-f]{32}"', "", text) for text in (told, wanted))
        assert (answer.status_code, told) == (expected[way].status_code, wanted), way
        assert answer.status_code >= 400 or way == "batch", (way, answer.text)
    assert len(listed(sites, THEIRS)) == SHARED + SECRET


@pytest.mark.parametrize(
    "path",
    [
        "ours/../theirs/crops",
        "ours%2F..%2Ftheirs/crops",
        "ours/crops/../../theirs/crops",
        "..%2Ftheirs/crops",
        "THEIRS/crops",
        "theirs%00/crops",
        "ours,theirs/crops",
        "*/crops",
    ],
)
def test_no_path_leads_across(sites: Sites, path: str) -> None:
    """Sent as they are: a client's library would tidy them up."""
    client = HTTPConnection(sites.service.rest, timeout=120)
    try:
        client.request("GET", f"/v1/galleries/{path}")
        answer = client.getresponse()
        text = answer.read().decode()
    finally:
        client.close()
    assert answer.status in (400, 404)
    for name in sites.secret:
        assert name not in text


def test_tokens_of_theirs_are_none_of_ours(sites: Sites) -> None:
    here = sites.connection
    pages = {
        "crops": lambda name, token: here.gallery.ListCrops(
            gallery.ListCropsRequest(gallery=name, page_size=2, page_token=token)
        ),
        "cameras": lambda name, token: here.gallery.ListCameras(
            gallery.ListCamerasRequest(gallery=name, page_size=1, page_token=token)
        ),
        "search": lambda name, token: here.search.Search(
            search.SearchRequest(gallery=name, image=sites.image(7000), top_k=2, page_token=token)
        ),
        "search by crop": lambda name, token: here.search.Search(
            search.SearchRequest(gallery=name, crop_id=sites.shared[0], top_k=2, page_token=token)
        ),
    }
    for what, page in pages.items():
        token = page(THEIRS, "").next_page_token
        assert token, what
        assert page(THEIRS, token), what
        with pytest.raises(grpc.RpcError) as caught:
            page(OURS, token)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, what
        assert "page_token" in caught.value.details(), what
