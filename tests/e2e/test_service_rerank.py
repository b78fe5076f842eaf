"""Re-ranking, through a real service."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from typer.testing import CliRunner

from resight.cli import app
from resight.v1 import search_service_pb2 as search_pb2
from service.domain.rerank import CheckedRerank
from service.retrieval.reranking import reranked
from tests.e2e.retrieval_site import (
    CROPS,
    DATABASES,
    Site,
    crop_ids,
    refused,
)

pytestmark = DATABASES


def test_candidates_are_ranked_again(site: Site) -> None:
    scores = site.vectors @ site.vectors[6]
    order = sorted((n for n in range(CROPS) if n != 6), key=lambda n: -scores[n])[:30]
    chosen = CheckedRerank(30, 5, 3, 0.2)
    distances = reranked(
        site.vectors[order].astype(np.float32), scores[order].astype(np.float32), chosen
    )
    expected = np.argsort(distances, kind="stable")
    told: dict[str, Any] = {"candidates": 30, "k1": 5, "k2": 3, "original_weight": 0.2}
    answer = site.grpc(crop_id=site.ids[6], top_k=12, rerank=search_pb2.Rerank(**told))
    found = [match.rerank_distance for match in answer.matches]
    np.testing.assert_allclose(found, distances[expected][:12], atol=1e-6)
    assert crop_ids(answer) == [site.ids[order[n]] for n in expected[:12]]
    assert crop_ids(answer) != [site.ids[n] for n in order[:12]], "something moved"
    body = site.rest(crop_id=site.ids[6], top_k=12, rerank=told)
    assert crop_ids(body) == crop_ids(answer)
    form = {"top_k": "5", "rerank_candidates": "20"}
    files = {"image": ("q.jpg", site.image(4300))}
    flat = site.client.post("/search", files=files, data=form).json()
    same = site.grpc(image=site.image(4300), top_k=5, rerank=search_pb2.Rerank(candidates=20))
    assert crop_ids(flat) == crop_ids(same)
    assert not answer.next_page_token


def test_bad_reranking_is_named(site: Site) -> None:
    make = search_pb2.Rerank
    cases: list[tuple[dict[str, Any], str]] = [
        ({"rerank": make(candidates=5)}, "rerank.candidates"),
        ({"rerank": make(candidates=1001)}, "rerank.candidates"),
        ({"rerank": make(k1=0)}, "rerank.k1"),
        ({"rerank": make(k2=21)}, "rerank.k2"),
        ({"rerank": make(original_weight=math.nan)}, "rerank.original_weight"),
        ({"rerank": make(), "group_by": 1}, "rerank"),
        ({"rerank": make(), "page_token": "x"}, "page_token"),
    ]
    for fields, field in cases:
        found = refused(partial(site.grpc, crop_id=site.ids[0], **fields))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, field), fields


def test_the_command_ranks_again(site: Site, tmp_path: Path) -> None:
    (tmp_path / "q.jpg").write_bytes(site.image(4300))
    at = ("--target", site.service.grpc, "--gallery", "site", "--json")
    query = ("search", str(tmp_path / "q.jpg"), "--top-k", "5", "--rerank", "20")
    done = CliRunner().invoke(app, [*query, *at])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)["matches"]
    rerank = search_pb2.Rerank(candidates=20)
    answer = site.grpc(image=site.image(4300), top_k=5, rerank=rerank)
    assert [match["crop_id"] for match in found] == crop_ids(answer)
    ranked_by = [match.rerank_distance for match in answer.matches]
    assert [match["rerank_distance"] for match in found] == pytest.approx(ranked_by)
