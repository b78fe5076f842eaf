"""Random searches of random galleries through a real service, against a ranking of all rows."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from resight.v1 import search_service_pb2 as search_pb2
from tests.e2e.random_site import IMAGES, Asked, RandomSite, random_question
from tests.e2e.retrieval_site import DATABASES, Site, crop_ids
from tests.service.retrieval.test_reranking import dense

pytestmark = DATABASES

ROWS = 130


class Both:
    """The same question over gRPC and REST, whose answers must be the same."""

    def __init__(self, made: RandomSite) -> None:
        self.made = made
        self.path = f"/v1/galleries/{made.gallery}/search"

    def image(self, number: int) -> str:
        return base64.b64encode(self.made.site.image(5000 + number)).decode()

    def __call__(self, asked: Asked, **more: Any) -> dict[str, Any]:
        body = asked.body(self.image) | more
        client, base = self.made.site.client, self.made.site.service.rest
        answer = client.post(f"http://{base}{self.path}", json=body)
        assert answer.status_code == 200, (answer.text, asked)
        found: dict[str, Any] = answer.json()
        request = message(body, self.made.gallery)
        other = self.made.site.connection.search.Search(request)
        assert crop_ids(other) == crop_ids(found)
        assert [crop_ids(group) for group in other.groups] == [
            crop_ids(group) for group in found["groups"]
        ]
        assert [match.score for match in other.matches] == [
            pytest.approx(match["score"], abs=1e-7) for match in found["matches"]
        ]
        assert (other.rows_scanned, other.rows_total, bool(other.next_page_token)) == (
            found["rows_scanned"], found["rows_total"], bool(found["next_page_token"]),
        )  # fmt: skip
        return found


def message(body: dict[str, Any], gallery: str) -> search_pb2.SearchRequest:
    """The gRPC message of a REST body."""
    told = json.loads(json.dumps(body)) | {"gallery": gallery}
    for name, prefix in (("fusion", "FUSION"), ("own_camera", "OWN_CAMERA"),
                         ("group_by", "GROUP_BY")):  # fmt: skip
        if name in told:
            told[name] = f"{prefix}_{told[name].upper()}"
    if "own_camera_window_seconds" in told:
        told["own_camera_window"] = f"{told.pop('own_camera_window_seconds')}s"
    return json_format.ParseDict(told, search_pb2.SearchRequest())


@pytest.fixture(scope="module")
def both(site: Site) -> Both:
    made = RandomSite(site, "random", seed=1)
    made.add(ROWS)
    return Both(made)


def checked(found: list[dict[str, Any]], expected: list[tuple[str, float]]) -> None:
    """The same ids in the same order, up to scores that differ by less than rounding."""
    got = [(match["crop"]["crop_id"], match["score"]) for match in found]
    assert {crop_id for crop_id, _ in got} == {crop_id for crop_id, _ in expected}
    assert len(got) == len(expected)
    np.testing.assert_allclose(
        [score for _, score in got], [score for _, score in expected], atol=2e-6
    )
    by_id = dict(got)
    for (one, score), (other, _) in zip(got, expected, strict=True):
        assert one == other or abs(score - by_id[other]) < 2e-6
    for (one, score), (other, next_score) in pairwise(got):
        assert (-score, one) < (-next_score, other)


def test_any_question_is_answered_as_by_ranking_every_row(both: Both) -> None:
    filled = 0
    for _ in range(70):
        asked = random_question(both.made)
        expected = both.made.ranked(asked)
        count = both.made.rng.choice([1, 5, 20, 1000])
        found = both(asked, top_k=count)
        checked(found["matches"], expected[:count])
        assert found["rows_total"] == len(both.made.rows)
        assert bool(found["next_page_token"]) == (len(expected) > count)
        filled += len(expected) > 3
    assert filled > 20


def test_pages_of_any_question_are_its_ranking(both: Both) -> None:
    for _ in range(12):
        asked = random_question(both.made)
        found: list[dict[str, Any]] = []
        token = ""
        while token or not found:
            answer = both(asked, top_k=both.made.rng.choice([1, 3, 17]), page_token=token)
            found += answer["matches"]
            token = answer["next_page_token"]
            if not token:
                break
        checked(found, both.made.ranked(asked))


@pytest.mark.parametrize("by", ["camera", "track"])
def test_groups_of_any_question_are_those_of_its_ranking(both: Both, by: str) -> None:
    for _ in range(25):
        asked = random_question(both.made)
        count, size = both.made.rng.choice([1, 2, 4, 30]), both.made.rng.choice([1, 2, 6])
        groups: dict[Any, list[tuple[str, float]]] = {}
        for crop_id, score in both.made.ranked(asked):
            row = both.made.rows[crop_id]
            alone = "" if row.track else crop_id
            key = row.camera if by == "camera" else (row.camera, row.track, alone)
            groups.setdefault(key, []).append((crop_id, score))
        expected = [members[:size] for members in list(groups.values())[:count]]
        found = both(asked, top_k=count, group_by=by, group_size=size)
        assert len(found["groups"]) == len(expected)
        for group, members in zip(found["groups"], expected, strict=True):
            checked(group["matches"], members)


def test_reranking_of_any_question_is_the_published_formula(site: Site) -> None:
    made = RandomSite(site, "distinct", seed=4)
    made.add(IMAGES, distinct=True)
    both, moved = Both(made), 0
    for _ in range(30):
        asked = random_question(made)
        asked.fusion = "mean" if asked.fusion == "max" else asked.fusion
        # An image that is stored would be as near to a crop as its twin, but for rounding.
        stored = sorted(made.rows)
        asked.wanted = [
            stored[value] if isinstance(value, int) else value for value in asked.wanted
        ]
        asked.seen = None
        candidates = made.rng.choice([10, 25, 200])
        ranked = made.ranked(asked)[:candidates]
        told = {"candidates": candidates, "k1": 6, "k2": 3}
        found = both(asked, top_k=10, rerank=told)["matches"]
        ids = [crop_id for crop_id, _ in ranked]
        assert len(found) == min(10, len(ids))
        if not ids:
            continue
        points = np.concatenate((made.query(asked), [made.vector(crop_id) for crop_id in ids]))
        distances = dict(zip(ids, dense(points, 6, 3, 0.3), strict=True))
        got = [match["crop"]["crop_id"] for match in found]
        told_distances = [match["rerank_distance"] for match in found]
        np.testing.assert_allclose(told_distances, sorted(distances.values())[:10], atol=1e-5)
        np.testing.assert_allclose([distances[key] for key in got], told_distances, atol=1e-5)
        moved += got != ids[:10]
    assert moved > 4


def test_pages_while_rows_come_and_go(site: Site) -> None:
    made = RandomSite(site, "changing", seed=2)
    made.add(60)
    both = Both(made)
    for _ in range(8):
        asked = random_question(made)
        asked.wanted = [value if isinstance(value, int) else 3 for value in asked.wanted]
        asked.unwanted, asked.own, asked.window, asked.seen = [], "any", None, None
        if asked.fusion == "quality":
            asked.fusion = "mean"
        before = {crop_id for crop_id, _ in made.ranked(asked)}
        ever = set(before)
        found: list[str] = []
        scores: list[float] = []
        token = ""
        while True:
            answer = both(asked, top_k=4, page_token=token)
            found += crop_ids(answer)
            scores += [match["score"] for match in answer["matches"]]
            token = answer["next_page_token"]
            if not token:
                break
            made.add(3)
            for crop_id in made.rng.sample(sorted(made.rows), 3):
                made.delete(crop_id)
            ever |= {crop_id for crop_id, _ in made.ranked(asked)}
        throughout = before & set(made.rows)
        assert len(set(found)) == len(found), "no row twice"
        assert throughout <= set(found), "none skipped that was there throughout"
        assert set(found) <= ever
        assert scores == sorted(scores, reverse=True)


def test_a_deleted_crop_is_no_query_and_no_example(site: Site) -> None:
    made = RandomSite(site, "deleted", seed=3)
    made.add(20)
    gone = sorted(made.rows)[4]
    made.delete(gone)
    base = f"http://{site.service.rest}/v1/galleries/deleted/search"
    cases: list[tuple[dict[str, Any], str]] = [
        ({"crop_id": gone}, "crop_id"),
        ({"positives": [{"crop_id": gone}]}, "positives[0].crop_id"),
        ({"crop_id": sorted(made.rows)[0], "negatives": [{"crop_id": gone}]},
         "negatives[0].crop_id"),
        ({"crop_id": gone, "own_camera": "exclude"}, "crop_id"),
        ({"crop_id": gone, "rerank": {}}, "crop_id"),
        ({"crop_id": gone, "group_by": "track"}, "crop_id"),
    ]  # fmt: skip
    for body, field in cases:
        answer = site.client.post(base, json=body)
        assert (answer.status_code, answer.json()["field"]) == (404, field)
    track = base.replace("/search", "/track")
    answer = site.client.post(track, json={"query": {"crop_id": gone, "min_score": 0.1}})
    assert answer.status_code == 404
