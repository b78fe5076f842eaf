"""Batches of searches, against the same searches alone."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from resight.errors import ResightError
from service.application.ingest import IngestItem
from service.domain.crop import CropFilter, TimeRange
from service.domain.examples import Example, Fusion
from service.domain.groups import GroupBy
from service.domain.own_camera import OwnCamera, OwnCameraRule
from service.domain.query import QueryEmbedding, SearchAnswer, SearchQuery
from service.domain.rerank import Rerank
from service.gallery.index import SegmentedIndex


async def fill(application: Any, at: Any, count: int = 150) -> list[str]:
    stored = []
    for number in range(count):
        item = IngestItem(
            "", f"c{number % 3 + 1}", at(number), b"crop %d" % number, track_id=f"t{number // 5}"
        )
        stored.append(str((await application.ingest.submit(item)).crop_id))
    return stored


def random_query(rng: random.Random, ids: list[str], at: Any) -> SearchQuery:
    """One of few filters, depths and thresholds, so that some agree."""
    query = SearchQuery(
        top_k=rng.choice([1, 5, 5, 40]),
        filter=rng.choice(
            [
                CropFilter(),
                CropFilter(),
                CropFilter(include_camera_ids=["c2"]),
                CropFilter(capture_range=TimeRange(at(20), at(90))),
            ]
        ),
        min_score=rng.choice([None, None, None, 0.1]),
    )
    kind = rng.randrange(9)
    if kind < 3:
        return replace(query, crop_id=rng.choice(ids))
    if kind == 3:
        return replace(query, image=b"query %d" % rng.randrange(9))
    if kind == 4:
        values = np.random.default_rng(rng.randrange(99)).standard_normal(32)
        return replace(query, embedding=QueryEmbedding(values, "hash-1"))
    if kind == 5:
        return replace(query, crop_id=rng.choice(ids), group_by=GroupBy.TRACK, group_size=3)
    if kind == 6:
        return replace(query, crop_id=rng.choice(ids), rerank=Rerank(candidates=60))
    if kind == 7:
        rule = OwnCameraRule(OwnCamera.EXCLUDE_WITHIN, timedelta(seconds=9))
        return replace(query, crop_id=rng.choice(ids), own_camera=rule)
    return replace(
        query,
        positives=[Example(crop_id=name) for name in rng.sample(ids, 3)],
        negatives=[Example(crop_id=rng.choice(ids)), Example(image=b"unwanted")],
        fusion=rng.choice(list(Fusion)),
    )


def wrong_queries(ids: list[str]) -> list[SearchQuery]:
    return [
        SearchQuery(),
        SearchQuery(image=b"bad"),
        SearchQuery(crop_id="0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"),
        SearchQuery(crop_id=ids[0], top_k=0),
        SearchQuery(gallery="nowhere", crop_id=ids[0]),
        SearchQuery(crop_id=ids[0], deadline=time.monotonic() - 1),
    ]


async def alone(application: Any, query: SearchQuery) -> SearchAnswer | ResightError:
    try:
        return await application.search.search(query)
    except ResightError as error:
        return error


@pytest.mark.parametrize("seed", range(4))
def test_each_query_is_answered_as_alone(opened, run, at, monkeypatch, seed: int) -> None:
    rng, looks = random.Random(seed), []
    plain = SegmentedIndex.search_batch

    def counted(self: Any, vectors: Any, *rest: Any) -> Any:
        looks.append(len(vectors))
        return plain(self, vectors, *rest)

    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at)
            queries = [random_query(rng, ids, at) for _ in range(58)] + wrong_queries(ids)
            rng.shuffle(queries)
            monkeypatch.setattr(SegmentedIndex, "search_batch", counted)
            expected = [await alone(application, query) for query in queries]
            single = len(looks)
            found = await application.search_batch.search(queries)
            for query, one, other in zip(queries, found, expected, strict=True):
                if isinstance(one, SearchAnswer):
                    assert one == other, query
                else:
                    assert isinstance(other, ResightError)
                    assert (type(one), one.message) == (type(other), other.message)
            assert sum(isinstance(one, SearchAnswer) for one in found) >= 50
            assert max(looks) > 4
            assert len(looks) - single < single - 10, "looks were shared"

    run(work())


def test_pages_in_a_batch_go_on_where_they_ended(opened, run, at) -> None:
    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at, 60)
            queries = [SearchQuery(crop_id=name, top_k=7) for name in ids[:9]]
            whole = [
                (await application.search.search(replace(query, top_k=60))).matches
                for query in queries
            ]
            found: list[list[Any]] = [[] for _ in queries]
            tokens = [""] * len(queries)
            while any(tokens) or not found[0]:
                pages = await application.search_batch.search(
                    [
                        replace(query, page_token=token)
                        for query, token in zip(queries, tokens, strict=True)
                    ]
                )
                for rows, page in zip(found, pages, strict=True):
                    rows += page.matches
                tokens = [page.next_page_token for page in pages]
            assert [tuple(rows) for rows in found] == whole

    run(work())


def test_a_failing_look_together_leaves_each_to_itself(opened, run, at, monkeypatch) -> None:
    plain = SegmentedIndex.search_batch

    def failing(self: Any, vectors: Any, *rest: Any) -> Any:
        if len(vectors) > 1:
            raise MemoryError
        return plain(self, vectors, *rest)

    async def work() -> None:
        async with opened() as application:
            ids = await fill(application, at, 20)
            queries = [SearchQuery(crop_id=name) for name in ids]
            expected = [await alone(application, query) for query in queries]
            monkeypatch.setattr(SegmentedIndex, "search_batch", failing)
            assert await application.search_batch.search(queries) == expected

    run(work())
