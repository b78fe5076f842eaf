"""Retrieval through a real service with a calibrated bundle, on gRPC and REST."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from PIL import Image, ImageFilter
from typer.testing import CliRunner

from resight.bundle.attachments import Attachments, attach
from resight.cli import app
from resight.client.connection import Connection, connect
from resight.v1 import bundle_pb2, embed_service_pb2, gallery_service_pb2
from resight.v1 import search_service_pb2 as search_pb2
from resight.v1.types_pb2 import Camera, Crop, Embedding
from service.domain.crop import Crop as DomainCrop
from service.domain.instant import to_micros
from service.domain.query import Match
from service.domain.rerank import CheckedRerank
from service.domain.trajectory import TravelTime, checked_travel_times
from service.retrieval.reranking import reranked
from service.retrieval.trajectory import best_way, visits

START = datetime(2026, 5, 1, tzinfo=UTC)
CROPS = 60
CAMERAS = ("hall", "gate", "yard", "roof")
SLOPE, INTERCEPT = 9.0, -4.0


class Site(NamedTuple):
    """A service, a gallery ``site`` of known vectors, and ways to ask it."""

    connection: Connection
    client: httpx.Client
    service: Any
    ids: list[str]
    vectors: np.ndarray
    image: Callable[[int], bytes]

    def grpc(self, **fields: Any) -> search_pb2.SearchResponse:
        request = search_pb2.SearchRequest(gallery="site", **fields)
        return self.connection.search.Search(request)

    def rest(self, path: str = "/search", /, **body: Any) -> Any:
        answer = self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def vector(self, image: bytes) -> np.ndarray:
        answer = self.connection.embed.Embed(embed_service_pb2.EmbedRequest(image=image))
        return np.frombuffer(answer.embedding.values, "<f4").astype(np.float64)

    def ranked(self, scores: np.ndarray, rows: list[int] | None = None) -> list[str]:
        """Ids by float32 score, then id."""
        rounded = scores.astype(np.float32)
        chosen = range(CROPS) if rows is None else rows
        return [self.ids[n] for n in sorted(chosen, key=lambda n: (-rounded[n], self.ids[n]))]


def stamp(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory,
    make_bundle: Callable[..., Path],
    start_serving: Callable[..., Any],
    make_jpeg: Callable[..., bytes],
) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("retrieval")
    kinds = bundle_pb2.ScoreCalibration
    fitted = kinds(form=kinds.FORM_LOGISTIC, slope=SLOPE, intercept=INTERCEPT, prior=0.1)
    attach(make_bundle(root / "bundle", height=64), Attachments(calibration=fitted))
    with (
        start_serving(root / "bundle", root / "data") as service,
        connect(service.grpc) as connection,
        httpx.Client(base_url=f"http://{service.rest}/v1/galleries/site", timeout=30) as client,
    ):
        for camera in CAMERAS:
            connection.gallery.CreateCamera(
                gallery_service_pb2.CreateCameraRequest(
                    gallery="site", camera=Camera(camera_id=camera)
                )
            )
        items = [
            gallery_service_pb2.IngestCropsRequest(
                gallery="site",
                sequence=number,
                image=make_jpeg(3000 + number),
                crop=Crop(
                    camera_id=CAMERAS[number % 4],
                    capture_time=stamp(START + timedelta(minutes=number)),
                    track_id="" if number % 7 == 0 else f"t{number // 8}",
                ),
            )
            for number in range(CROPS)
        ]
        answers = {a.sequence: a.crop_id for a in connection.gallery.IngestCrops(iter(items))}
        ids = [answers[number] for number in range(CROPS)]
        asked = Site(connection, client, service, ids, np.empty(0), make_jpeg)
        vectors = np.stack([asked.vector(make_jpeg(3000 + number)) for number in range(CROPS)])
        yield asked._replace(vectors=vectors)


def crop_ids(answer: Any) -> list[str]:
    if isinstance(answer, dict):
        return [match["crop"]["crop_id"] for match in answer["matches"]]
    return [match.crop.crop_id for match in answer.matches]


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, str]:
    """Status, field and reason of what gRPC answers."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    status = rpc_status.from_call(error)
    assert status is not None
    field = reason = ""
    for detail in status.details:
        bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
        if detail.Unpack(bad):
            field = bad.field_violations[0].field
        elif detail.Unpack(info):
            reason = info.reason
    return error.code(), field, reason


def test_every_match_has_its_probability_and_the_threshold_keeps_the_likely(site: Site) -> None:
    scores = site.vectors @ site.vectors[4]
    likely = 1 / (1 + np.exp(-(SLOPE * scores + INTERCEPT)))
    answer = site.grpc(crop_id=site.ids[4], top_k=CROPS)
    for match in answer.matches:
        number = site.ids.index(match.crop.crop_id)
        assert match.probability == pytest.approx(likely[number], abs=1e-5)
    threshold = float(np.sort(likely)[-8:-6].mean())
    expected = site.ranked(scores, [n for n in range(CROPS) if likely[n] >= threshold and n != 4])
    assert len(expected) == 6
    for found in (
        site.grpc(crop_id=site.ids[4], top_k=CROPS, min_probability=threshold),
        site.rest(crop_id=site.ids[4], top_k=CROPS, min_probability=threshold),
    ):
        assert crop_ids(found) == expected
    both = site.rest(crop_id=site.ids[4], min_probability=threshold, min_score=0.999)
    assert (both["matches"], both["rows_total"]) == ([], CROPS)
    assert both["index_lag_seconds"] == answer.index_lag_seconds == 0.0


def test_a_probability_in_a_form(site: Site) -> None:
    form = {"min_probability": "0.999999"}
    files = {"image": ("q.jpg", site.image(3004))}
    answer = site.client.post("/search", files=files, data=form)
    assert (answer.status_code, answer.json()["matches"]) == (200, [])


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0, math.nan])
def test_what_is_no_probability_is_refused(site: Site, value: float) -> None:
    found = refused(lambda: site.grpc(crop_id=site.ids[0], min_probability=value))
    assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, "min_probability")
    if not math.isnan(value):
        body = {"crop_id": site.ids[0], "min_probability": value}
        answer = site.client.post("/search", json=body)
        assert (answer.status_code, answer.json()["field"]) == (400, "min_probability")


def test_without_a_calibration_no_probability_is_made_up(service: Any, make_jpeg: Any) -> None:
    with connect(service.grpc) as connection:

        def ask(**fields: Any) -> Any:
            request = search_pb2.SearchRequest(image=make_jpeg(1), **fields)
            return connection.search.Search(request)

        assert not any(match.HasField("probability") for match in ask().matches)
        found = refused(lambda: ask(min_probability=0.5))
    assert (found[0], found[2]) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_CALIBRATION")


def pages(ask: Callable[..., Any], **fields: Any) -> list[str]:
    found, token = [], ""
    while True:
        answer = ask(page_token=token, **fields)
        found += crop_ids(answer)
        token = answer["next_page_token"] if isinstance(answer, dict) else answer.next_page_token
        if not token:
            return found


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


def example(site: Site, number: int, **fields: Any) -> search_pb2.Example:
    return search_pb2.Example(crop_id=site.ids[number], **fields)


def test_the_mean_of_examples_moves_away_from_negatives(site: Site) -> None:
    chosen = {
        "positives": [{"crop_id": site.ids[1]}, {"crop_id": site.ids[2], "weight": 3.0}],
        "negatives": [{"crop_id": site.ids[5]}],
    }
    mean = (site.vectors[1] + 3 * site.vectors[2]) / 4 - 0.2 * site.vectors[5]
    scores = site.vectors @ (mean / np.linalg.norm(mean))
    rows = [n for n in range(CROPS) if n not in (1, 2, 5)]
    body = site.rest(top_k=CROPS, **chosen)
    answer = site.grpc(
        top_k=CROPS,
        positives=[example(site, 1), example(site, 2, weight=3.0)],
        negatives=[example(site, 5)],
    )
    assert crop_ids(body) == crop_ids(answer)
    found = [site.ids.index(key) for key in crop_ids(answer)]
    assert sorted(found) == rows
    np.testing.assert_allclose([m.score for m in answer.matches], scores[found], atol=1e-5)
    assert pages(site.rest, top_k=10, **chosen) == crop_ids(body)


def test_the_nearest_example_counts_and_negatives_leave_out(site: Site) -> None:
    query, unwanted = site.image(4001), [7, 8, 9]
    examples = np.stack([site.vector(query), site.vectors[20]])
    best = (site.vectors @ examples.T).max(axis=1)
    against = (site.vectors @ site.vectors[unwanted].T).max(axis=1)
    rows = [n for n in range(CROPS) if against[n] < best[n] and n not in (20, *unwanted)]
    assert 5 < len(rows) < CROPS - 10, "negatives leave some out and not all"
    fields: dict[str, Any] = {
        "image": query,
        "positives": [example(site, 20)],
        "negatives": [example(site, number) for number in unwanted],
        "fusion": search_pb2.FUSION_MAX,
    }
    answer = site.grpc(top_k=CROPS, **fields)
    found = [site.ids.index(key) for key in crop_ids(answer)]
    assert sorted(found) == rows
    np.testing.assert_allclose([m.score for m in answer.matches], best[found], atol=1e-5)
    assert list(found) == sorted(found, key=lambda n: -best[n])
    assert pages(site.grpc, top_k=4, **fields) == crop_ids(answer)


def test_images_in_a_form_are_examples(site: Site) -> None:
    pictures = [site.image(3001), site.image(3002), site.image(3003)]
    files = [("image", ("a.jpg", pictures[0])), ("image", ("b.jpg", pictures[1]))]
    files.append(("negative_image", ("c.jpg", pictures[2])))
    form = {"top_k": str(CROPS), "fusion": "quality"}
    answer = site.client.post("/search", files=files, data=form)
    assert answer.status_code == 200, answer.text
    same = site.grpc(
        top_k=CROPS,
        image=pictures[0],
        positives=[search_pb2.Example(image=pictures[1])],
        negatives=[search_pb2.Example(image=pictures[2])],
        fusion=search_pb2.FUSION_QUALITY,
    )
    assert crop_ids(answer.json()) == crop_ids(same)
    assert set(crop_ids(same)[:2]) == {site.ids[1], site.ids[2]}


def test_a_blurred_image_counts_less(site: Site) -> None:
    sharp = site.image(4100)
    picture = Image.open(io.BytesIO(site.image(4101))).filter(ImageFilter.GaussianBlur(12))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    images = {"image": sharp, "positives": [search_pb2.Example(image=buffer.getvalue())]}

    def nearness(fusion: Any) -> float:
        """How near the ranking's scores are to those of the sharp image alone."""
        alone = {m.crop.crop_id: m.score for m in site.grpc(image=sharp, top_k=CROPS).matches}
        found = site.grpc(fusion=fusion, top_k=CROPS, **images).matches
        return float(
            np.corrcoef([m.score for m in found], [alone[m.crop.crop_id] for m in found])[0, 1]
        )

    assert nearness(search_pb2.FUSION_QUALITY) > nearness(search_pb2.FUSION_MEAN)


def test_bad_examples_are_named(site: Site) -> None:
    vector = Embedding(values=b"\0" * 8, dimension=2, model_version=site.service.model)
    unknown = "0198c0de-5a5a-7000-8000-3f1a2b3c4d5e"
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "query"),
        ({"positives": [search_pb2.Example()]}, "positives[0]"),
        ({"positives": [search_pb2.Example(image=b"x")]}, "positives[0].image"),
        ({"positives": [example(site, 1), example(site, 2, weight=math.nan)]},
         "positives[1].weight"),
        ({"crop_id": site.ids[0], "negatives": [search_pb2.Example(embedding=vector)]},
         "negatives[0].embedding.values"),
        ({"positives": [example(site, 1)] * 33}, "positives"),
        ({"crop_id": site.ids[0], "fusion": 9}, "fusion"),
        ({"positives": [example(site, 1, weight=2.0)], "fusion": search_pb2.FUSION_MAX},
         "positives[0].weight"),
    ]  # fmt: skip
    for fields, field in cases:
        found = refused(partial(site.grpc, **fields))
        assert found[:2] == (grpc.StatusCode.INVALID_ARGUMENT, field), fields
    fields = {"positives": [search_pb2.Example(crop_id=unknown)]}
    assert refused(lambda: site.grpc(**fields))[0] is grpc.StatusCode.NOT_FOUND
    answer = site.client.post("/search", json={"positives": [{"crop_id": unknown}]})
    assert (answer.status_code, answer.json()["field"]) == (404, "positives[0].crop_id")
    answer = site.client.post("/search", json={"positives": [{"image": "no base64 !"}]})
    assert answer.status_code == 422


def test_cameras_of_all_stored_examples_are_left_out(site: Site) -> None:
    body = {
        "positives": [{"crop_id": site.ids[0]}, {"crop_id": site.ids[1]}],
        "own_camera": "exclude",
        "top_k": CROPS,
    }
    answer = site.rest(**body)
    assert len(answer["matches"]) == CROPS // 2
    assert {m["crop"]["camera_id"] for m in answer["matches"]} == {CAMERAS[2], CAMERAS[3]}


def test_the_command_takes_several_images(site: Site, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        (tmp_path / f"{number}.jpg").write_bytes(site.image(3000 + number))
    command = [
        "search", str(tmp_path / "1.jpg"), str(tmp_path / "2.jpg"),
        "--unlike", str(tmp_path / "3.jpg"), "--fusion", "max", "--top-k", "4", "--json",
        "--target", site.service.grpc, "--gallery", "site",
    ]  # fmt: skip
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert {match["crop_id"] for match in found["matches"][:2]} == {site.ids[1], site.ids[2]}
    assert 0 < found["matches"][0]["probability"] < 1
    again = CliRunner().invoke(app, [*command, "--page-token", found["next_page_token"]])
    both = found["matches"] + json.loads(again.stdout)["matches"]
    assert len({match["crop_id"] for match in both}) == 8
    told = CliRunner().invoke(app, [*command[:-5], *command[-4:], "--group-by", "camera"])
    assert told.exit_code == 0, told.stderr
    assert all(f"\n{name}\n" in f"\n{told.stdout}" for name in CAMERAS), told.stdout
    assert "4 groups" in told.stdout


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
    found = [match["crop_id"] for match in json.loads(done.stdout)["matches"]]
    rerank = search_pb2.Rerank(candidates=20)
    assert found == crop_ids(site.grpc(image=site.image(4300), top_k=5, rerank=rerank))


def way(site: Site, threshold: float, least: dict[tuple[str, str], int]) -> TrackAnswerParts:
    """The visits of crop 0's person, from the vectors themselves."""
    scores = site.vectors @ site.vectors[0]
    matches = [
        Match(
            DomainCrop(
                UUID(site.ids[n]),
                CAMERAS[n % 4],
                to_micros(START + timedelta(minutes=n)),
                b"",
                "" if n % 7 == 0 else f"t{n // 8}",
            ),
            float(scores[n]),
            float(1 / (1 + math.exp(-(SLOPE * scores[n] + INTERCEPT)))),
        )
        for n in range(CROPS)
        if scores[n] >= threshold
    ]
    table = checked_travel_times(
        [TravelTime(a, b, low, low + 60, low + 600) for (a, b), low in least.items()], limit=10
    )
    ordered = visits(matches, 60)
    return TrackAnswerParts(
        [[str(m.crop.crop_id) for m in ordered[n].sightings] for n in best_way(ordered, table)],
        len(ordered),
    )


class TrackAnswerParts(NamedTuple):
    """Crop ids by visit, and how many visits there were before any was left out."""

    visits: list[list[str]]
    before: int


@pytest.mark.parametrize("least", [{}, {("hall", "gate"): 300, ("gate", "yard"): 200}])
def test_the_way_of_a_person(site: Site, least: dict[tuple[str, str], int]) -> None:
    threshold = float(np.sort(site.vectors @ site.vectors[0])[-25])
    expected = way(site, threshold - 1e-5, least)
    times: list[dict[str, Any]] = [
        {"from_camera_id": a, "to_camera_id": b, "min_seconds": low,
         "typical_seconds": low + 60, "max_seconds": low + 600}
        for (a, b), low in least.items()
    ]  # fmt: skip
    request = search_pb2.TrackPersonRequest(
        query=search_pb2.SearchRequest(
            gallery="site", crop_id=site.ids[0], min_score=threshold - 1e-5
        ),
        travel_times=[search_pb2.TravelTime(**time) for time in times],
    )
    answer = site.connection.search.TrackPerson(request)
    found = [[match.crop.crop_id for match in visit.sightings] for visit in answer.visits]
    assert found == expected.visits
    assert any(site.ids[0] in visit for visit in found), "the query is a sighting"
    assert len(answer.hops) == len(found) - 1
    assert len(answer.conflicts) == expected.before - len(found)
    assert bool(answer.conflicts) == bool(least)
    for hop, one, other in zip(answer.hops, answer.visits, answer.visits[1:], strict=False):
        assert hop.seconds == other.start_time.seconds - one.end_time.seconds
        known = {(a, b) for a, b in least} | {(b, a) for a, b in least}
        pair = (one.camera_id, other.camera_id)
        unknown = pair not in known and pair[0] != pair[1]
        assert (hop.kind == search_pb2.Hop.KIND_UNKNOWN) == unknown
    body = site.rest(
        "/track",
        query={"crop_id": site.ids[0], "min_score": threshold - 1e-5},
        travel_times=times,
    )
    told = [[m["crop"]["crop_id"] for m in visit["sightings"]] for visit in body["visits"]]
    assert told == found
    assert [hop["seconds"] for hop in body["hops"]] == [hop.seconds for hop in answer.hops]
    assert len(body["conflicts"]) == len(answer.conflicts)
    assert (body["truncated"], answer.truncated, body["rows_total"]) == (False, False, CROPS)


def test_a_way_that_is_cut_short_says_so(site: Site) -> None:
    body = site.rest("/track", query={"crop_id": site.ids[0], "min_score": -1.0, "top_k": 7})
    assert body["truncated"]
    assert sum(len(visit["sightings"]) for visit in body["visits"]) == 7


def test_bad_tracks_are_named(site: Site) -> None:
    query = {"crop_id": site.ids[0], "min_score": 0.5}
    time = {"from_camera_id": "hall", "to_camera_id": "gate", "min_seconds": 1,
            "typical_seconds": 2, "max_seconds": 3}  # fmt: skip
    cases: list[tuple[dict[str, Any], int, str]] = [
        ({"query": {"crop_id": site.ids[0]}}, 400, "min_score"),
        ({"query": query | {"page_token": "x"}}, 400, "page_token"),
        ({"query": query | {"group_by": "camera"}}, 400, "group_by"),
        ({"query": query | {"rerank": {}}}, 400, "rerank"),
        ({"query": query | {"crop_id": "x"}}, 400, "crop_id"),
        ({"query": query, "visit_gap_seconds": -1}, 400, "visit_gap_seconds"),
        ({"query": query, "travel_times": [time, time]}, 400, "travel_times[1]"),
        ({"query": query, "travel_times": [time | {"min_seconds": 9}]}, 400, "travel_times[0]"),
        (
            {"query": query, "travel_times": [time | {"to_camera_id": "cellar"}]},
            404,
            "travel_times[0].to_camera_id",
        ),
    ]
    for body, status, field in cases:
        answer = site.client.post("/track", json=body)
        assert (answer.status_code, answer.json()["field"]) == (status, field), body
    found = refused(partial(site.connection.search.TrackPerson, search_pb2.TrackPersonRequest()))
    assert found[0] is grpc.StatusCode.INVALID_ARGUMENT


def test_the_command_prints_the_way(site: Site, tmp_path: Path) -> None:
    (tmp_path / "q.jpg").write_bytes(site.image(3000))
    (tmp_path / "site.csv").write_text(
        "from,to,min_seconds,typical_seconds,max_seconds\nhall,gate,300,400,500\n"
    )
    command = [
        "track", str(tmp_path / "q.jpg"), "--min-score", "-1", "--target", site.service.grpc,
        "--gallery", "site", "--travel-times", str(tmp_path / "site.csv"), "--until",
        "2026-05-01T00:03:00Z",
    ]  # fmt: skip
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert [visit["camera_id"] for visit in found["visits"]] == ["hall", "yard"]
    assert [visit["camera_id"] for visit in found["conflicts"]] == ["gate"]
    assert found["visits"][0]["crop_ids"] == [site.ids[0]]
    text = CliRunner().invoke(app, command).stdout
    assert "left out: gate" in text
    assert "120 s, unknown" in text
    for wrong in ("from,to\n", "from,to,min_seconds,typical_seconds,max_seconds\na,b,1,x,3\n"):
        (tmp_path / "site.csv").write_text(wrong)
        bad = CliRunner().invoke(app, command)
        assert (bad.exit_code, "site.csv" in bad.stderr) == (1, True)
