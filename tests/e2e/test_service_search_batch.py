"""Several queries in one call, through a real service."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from typer.testing import CliRunner

from resight.cli import app
from resight.v1 import search_service_pb2 as search_pb2
from tests.e2e.retrieval_site import (
    DATABASES,
    Site,
    refused,
)

pytestmark = DATABASES


def test_a_batch_answers_each_query_as_alone(site: Site) -> None:
    unknown: dict[str, Any] = {"group_by": 9}
    queries = [
        search_pb2.SearchRequest(gallery="site", crop_id=site.ids[1], top_k=3),
        search_pb2.SearchRequest(gallery="site", image=b"no image"),
        search_pb2.SearchRequest(
            gallery="site", image=site.image(4200), group_by=search_pb2.GROUP_BY_CAMERA
        ),
        search_pb2.SearchRequest(gallery="site", crop_id=site.ids[1], top_k=0),
        search_pb2.SearchRequest(gallery="nowhere", crop_id=site.ids[1]),
        search_pb2.SearchRequest(gallery="site", crop_id=site.ids[1], **unknown),
    ]
    answer = site.connection.search.SearchBatch(search_pb2.SearchBatchRequest(queries=queries))
    assert len(answer.results) == len(queries)
    for query, result in zip(queries, answer.results, strict=True):
        try:
            alone = site.connection.search.Search(query)
        except grpc.RpcError:
            found = refused(partial(site.connection.search.Search, query))
            assert result.error.code == found[0].value[0]
            assert result.error.reason == found[2]
            if found[0] is grpc.StatusCode.INVALID_ARGUMENT:
                assert result.error.field == found[1] != ""
        else:
            assert result.response == alone
    assert [result.WhichOneof("result") for result in answer.results] == [
        "response", "error", "response", "error", "error", "error",
    ]  # fmt: skip


def test_a_batch_over_rest(site: Site) -> None:
    queries: list[dict[str, Any]] = [{"crop_id": site.ids[3], "top_k": 4}, {"crop_id": "x"}]
    first, second = site.rest("/search-batch", queries=queries)["results"]
    assert first["answer"] == site.rest(**queries[0])
    assert second["answer"] is None
    assert (second["problem"]["status"], second["problem"]["field"]) == (400, "crop_id")
    for wrong in ([], [{"crop_id": site.ids[0]}] * 65):
        answer = site.client.post("/search-batch", json={"queries": wrong})
        assert (answer.status_code, answer.json()["field"]) == (400, "queries")
        batch = search_pb2.SearchBatchRequest(
            queries=[search_pb2.SearchRequest(gallery="site", crop_id=site.ids[0])] * len(wrong)
        )
        found = refused(partial(site.connection.search.SearchBatch, batch))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "queries")


def test_the_command_asks_for_each_image(site: Site, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"{number}.jpg").write_bytes(site.image(3000 + number))
    (tmp_path / "bad.jpg").write_bytes(site.image(3001)[:-200])
    paths = [str(tmp_path / name) for name in ("1.jpg", "bad.jpg", "2.jpg")]
    at = ("--target", site.service.grpc, "--gallery", "site")
    done = CliRunner().invoke(app, ["search", "--each", *paths, *at, "--json"])
    assert done.exit_code == 1, "one image is bad"
    first, bad, second = json.loads(done.stdout)["answers"]
    assert first["matches"][0]["crop_id"] == site.ids[1]
    assert second["matches"][0]["crop_id"] == site.ids[2]
    assert (bad["image"], bad["error"]["field"]) == (paths[1], "image")
    text = CliRunner().invoke(app, ["search", "--each", *paths, *at]).stdout
    assert "error: image" in text
