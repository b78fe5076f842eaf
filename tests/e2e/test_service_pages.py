"""Pages of a ranking, through a real service."""

from __future__ import annotations

import base64
import hashlib
import struct
from functools import partial
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from resight.v1 import search_service_pb2 as search_pb2
from tests.e2e.retrieval_site import (
    CROPS,
    DATABASES,
    Site,
    crop_ids,
    pages,
    refused,
)

pytestmark = DATABASES


def test_pages_together_are_the_ranking(site: Site) -> None:
    image = site.image(77)
    for chosen in ({"image": image}, {"crop_id": site.ids[9]}):
        whole = crop_ids(site.grpc(top_k=CROPS, **chosen))
        assert pages(site.grpc, top_k=7, **chosen) == whole
        assert len(whole) == CROPS - ("crop_id" in chosen)
    assert pages(site.rest, crop_id=site.ids[9], top_k=8) == whole

    def form(**fields: Any) -> Any:
        answer = site.client.post("/search", files={"image": ("q.jpg", image)}, data=fields)
        assert answer.status_code == 200, answer.text
        return answer.json()

    assert pages(form, top_k=13) == crop_ids(site.grpc(top_k=CROPS, image=image))
    few = site.grpc(crop_id=site.ids[9], top_k=CROPS - 1)
    assert few.next_page_token == "", "no page follows the last row"
    threshold = site.grpc(crop_id=site.ids[9], top_k=20).matches[19].probability
    likely = pages(site.grpc, crop_id=site.ids[9], top_k=6, min_probability=threshold)
    assert likely == whole[: len(likely)]
    assert len(likely) >= 20


def test_an_image_is_embedded_for_the_first_page_alone(site: Site) -> None:
    def embedded() -> float:
        text = httpx.get(f"http://{site.service.rest}/metrics").text
        name = 'resight_stage_duration_seconds_count{stage="embed"} '
        return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])

    first = site.grpc(image=site.image(78), top_k=5)
    before = embedded()
    site.grpc(image=site.image(78), top_k=5, page_token=first.next_page_token)
    assert embedded() == before


@pytest.mark.parametrize(
    "changed",
    [{"crop_id": "other"}, {"min_score": 0.1}, {"own_camera": 2}, {"gallery": "default"}],
)
def test_a_page_of_another_query_is_refused(site: Site, changed: dict[str, Any]) -> None:
    token = site.grpc(crop_id=site.ids[3], top_k=5).next_page_token
    if "crop_id" in changed:
        changed = {"crop_id": site.ids[4]}
    fields = {"gallery": "site", "crop_id": site.ids[3], "page_token": token} | changed
    if "gallery" in changed:
        fields["crop_id"] = site.ids[3]
    found = refused(lambda: site.connection.search.Search(search_pb2.SearchRequest(**fields)))
    assert found == (grpc.StatusCode.INVALID_ARGUMENT, "page_token", "CURSOR_OF_ANOTHER_QUERY")


@pytest.mark.parametrize("token", ["x", "bm90IGEgdG9rZW4", "\u00e9", "A" * 500])
def test_what_is_no_page_token_is_refused(site: Site, token: str) -> None:
    answer = site.client.post("/search", json={"crop_id": site.ids[0], "page_token": token})
    assert (answer.status_code, answer.json()["field"]) == (400, "page_token")


def test_a_token_that_somebody_made_up_is_refused(site: Site) -> None:
    """Its check value is no signature; what it holds is checked as any input."""
    image = site.image(79)
    token = site.grpc(image=image, top_k=5).next_page_token
    body = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[8:]
    head, dimension = body[:-384], len(body[-384:]) // 4
    assert head[-4:] == struct.pack("<HH", 1, dimension), "one vector, at the end"
    values = np.frombuffer(body[-384:], "<f4")
    worse = values.copy()
    worse[3] = np.nan
    for made in (
        head[:-4] + struct.pack("<HH", 1, 3) + values[:3].tobytes(),
        head[:-4] + struct.pack("<HH", 1, 0),
        head + worse.tobytes(),
    ):
        whole = hashlib.sha256(made).digest()[:8] + made
        forged = base64.urlsafe_b64encode(whole).decode().rstrip("=")
        found = refused(partial(site.grpc, image=image, top_k=5, page_token=forged))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "page_token")
    whole = hashlib.sha256(body).digest()[:8] + body
    assert base64.urlsafe_b64encode(whole).decode().rstrip("=") == token, "as it is made"
