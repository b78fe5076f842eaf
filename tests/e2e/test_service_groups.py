"""Groups of matches, through a real service."""

from __future__ import annotations

from functools import partial
from typing import Any

import grpc
import pytest

from resight.v1 import search_service_pb2 as search_pb2
from tests.e2e.retrieval_site import (
    CROPS,
    DATABASES,
    Site,
    crop_ids,
    refused,
)

pytestmark = DATABASES


@pytest.mark.parametrize(("by", "count", "size"), [("camera", 10, 5), ("track", 4, 6)])
def test_groups_are_those_of_the_whole_ranking(site: Site, by: str, count: int, size: int) -> None:
    whole = site.grpc(crop_id=site.ids[11], top_k=CROPS).matches
    groups: dict[Any, list[str]] = {}
    for match in whole:
        crop = match.crop
        key: Any = (crop.camera_id, crop.track_id if by == "track" else "")
        if by == "track" and not crop.track_id:
            key = (*key, crop.crop_id)
        groups.setdefault(key, []).append(crop.crop_id)
    expected = [(key[:2], ids[:size]) for key, ids in list(groups.items())[:count]]
    value = search_pb2.GroupBy.Value(f"GROUP_BY_{by.upper()}")
    fields = {"crop_id": site.ids[11], "top_k": count, "group_size": size}
    answer = site.grpc(group_by=value, **fields)
    assert [
        ((group.camera_id, group.track_id), crop_ids(group)) for group in answer.groups
    ] == expected
    assert not answer.matches
    body = site.rest(group_by=by, **fields)
    assert [
        ((group["camera_id"], group["track_id"]), crop_ids(group)) for group in body["groups"]
    ] == expected


def test_bad_groups_are_named(site: Site) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"group_by": 9}, "group_by"),
        ({"group_size": 2}, "group_size"),
        ({"group_by": 1, "group_size": 0}, "group_size"),
        ({"group_by": 1, "group_size": 101}, "group_size"),
        ({"group_by": 2, "page_token": "x"}, "page_token"),
    ]
    for fields, field in cases:
        found = refused(partial(site.grpc, crop_id=site.ids[0], **fields))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, field), fields
    body = {"crop_id": site.ids[0], "group_by": "zone"}
    assert site.client.post("/search", json=body).status_code == 422
