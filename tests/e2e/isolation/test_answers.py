"""Of two galleries with the same cameras, ids and images each answers from its own."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import pytest

from resight.v1 import adaptation_service_pb2 as runs
from resight.v1 import embed_service_pb2 as embedding
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import AttributeTerm, CropFilter
from tests.e2e.isolation.two_galleries import (
    OURS,
    SECRET,
    SHARED,
    START,
    THEIR_CAMERA,
    THEIRS,
    Accepted,
    Sites,
    item,
    listed,
    shared_image,
)

pytestmark = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)


def test_the_same_ids_are_different_crops(sites: Sites) -> None:
    here = sites.connection
    for name in (OURS, THEIRS):
        for number, crop_id in enumerate(sites.shared):
            image = shared_image(sites.image, name, number)
            found = here.gallery.GetCrop(
                gallery.GetCropRequest(gallery=name, crop_id=crop_id, include_image=True)
            )
            assert found.image == image
            rest = httpx.get(f"{sites.url(name)}/crops/{crop_id}/image")
            assert rest.content == image
            best = here.search.Search(search.SearchRequest(gallery=name, image=image, top_k=1))
            assert best.matches[0].score > 0.999
            assert best.matches[0].crop.sha256 == hashlib.sha256(image).digest()
            # Leaves out the crop itself, of this gallery.
            around = here.search.Search(
                search.SearchRequest(gallery=name, crop_id=crop_id, top_k=1000)
            )
            total = SHARED + (SECRET if name == THEIRS else 0)
            assert len(around.matches) == total - 1
            assert around.rows_total == total


def test_every_way_to_search_stays_inside(sites: Sites) -> None:
    """Asked for exactly what is only theirs: their image, vector, zone, track, attribute."""
    here = sites.connection
    image = sites.image(7503)
    vector = here.embed.Embed(embedding.EmbedRequest(gallery=THEIRS, image=image)).embedding
    query = {"gallery": OURS, "top_k": 1000}
    answers = [
        here.search.Search(search.SearchRequest(**query, image=image)),
        here.search.Search(search.SearchRequest(**query, embedding=vector)),
        here.search.Search(
            search.SearchRequest(
                **query, image=image, positives=[search.Example(embedding=vector)],
                fusion=search.FUSION_MAX,
            )
        ),
        here.search.Search(
            search.SearchRequest(**query, image=image, rerank=search.Rerank(candidates=1000))
        ),
    ]  # fmt: skip
    for answer in answers:
        assert {match.crop.crop_id for match in answer.matches} == set(sites.shared)
        assert answer.rows_total == SHARED
    grouped = here.search.Search(
        search.SearchRequest(
            gallery=OURS, top_k=10, image=image, group_by=search.GROUP_BY_CAMERA, group_size=50
        )
    )
    assert {group.camera_id for group in grouped.groups} == {"door", "hall"}
    way = here.search.TrackPerson(
        search.TrackPersonRequest(
            query=search.SearchRequest(gallery=OURS, image=image, min_score=-1.0)
        )
    )
    assert {visit.camera_id for visit in way.visits} <= {"door", "hall"}
    for chosen in (
        {"include_zones": ["strongroom"]},
        {"include_track_ids": ["thief0"]},
        {"include_attributes": [AttributeTerm(key="coat", values=["ermine"])]},
    ):
        assert listed(sites, OURS, **chosen) == []
        assert listed(sites, THEIRS, **chosen)
        filtered = here.search.Search(
            search.SearchRequest(**query, image=image, filter=CropFilter(**chosen))
        )
        assert not filtered.matches


def test_a_batch_of_both_answers_each_from_its_own(sites: Sites) -> None:
    queries = [
        search.SearchRequest(gallery=name, image=sites.image(7500 + number), top_k=1000)
        for number in range(SECRET)
        for name in (OURS, THEIRS)
    ]
    queries.append(search.SearchRequest(gallery=OURS, crop_id=sites.secret[0]))
    queries.append(search.SearchRequest(gallery=THEIRS, crop_id=sites.secret[0], top_k=1000))
    results = sites.connection.search.SearchBatch(
        search.SearchBatchRequest(queries=queries)
    ).results
    for query, result in zip(queries[:-2], results[:-2], strict=True):
        found = {match.crop.crop_id for match in result.response.matches}
        assert found == set(sites.shared) | (
            set(sites.secret) if query.gallery == THEIRS else set()
        )
    assert results[-2].error.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert len(results[-1].response.matches) == SHARED + SECRET - 1


def test_many_searches_at_once_stay_inside(sites: Sites) -> None:
    def one(turn: int) -> bool:
        name = (OURS, THEIRS)[turn % 2]
        image = sites.image(7500 + turn % SECRET)
        answer = sites.connection.search.Search(
            search.SearchRequest(gallery=name, image=image, top_k=1000)
        )
        secrets = {match.crop.crop_id for match in answer.matches} & set(sites.secret)
        return len(secrets) == (SECRET if name == THEIRS else 0)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(200)))


def test_lists_and_counts_are_of_one_gallery(sites: Sites) -> None:
    here = sites.connection
    assert sorted(listed(sites, OURS)) == sorted(sites.shared)
    cameras = here.gallery.ListCameras(gallery.ListCamerasRequest(gallery=OURS)).cameras
    assert [(c.camera_id, c.display_name) for c in cameras] == [
        ("door", "ours-door"),
        ("hall", "ours-door"),
    ]
    stats = here.gallery.GetGalleryStats(gallery.GetGalleryStatsRequest(gallery=OURS))
    assert (stats.crops, stats.searchable, stats.cameras) == (SHARED, SHARED, 2)
    assert stats.newest_capture_time.seconds == START + SHARED - 1
    assert httpx.get(f"{sites.url()}/stats").json()["crops"] == SHARED
    found = here.adaptation.ListAdaptationRuns(runs.ListAdaptationRunsRequest(gallery=OURS)).runs
    assert [run.run_id for run in found] == [sites.our_run["run_id"]]
    versions = here.models.ListModels(models.ListModelsRequest(gallery=OURS)).models
    assert sites.their_model not in [model.model_version for model in versions]
    *items, _ = here.adaptation.StreamAdaptationCrops(
        runs.StreamAdaptationCropsRequest(**sites.our_run)
    )
    assert sorted(one.crop.crop.crop_id for one in items) == sorted(sites.shared)


def test_metrics_name_galleries_and_nothing_inside(sites: Sites) -> None:
    text = httpx.get(f"http://{sites.service.rest}/metrics").text
    version = sites.service.model
    for name, count in ((OURS, SHARED), (THEIRS, SHARED + SECRET)):
        line = f'resight_gallery_vectors{{gallery="{name}",model_version="{version}"}} {count}.0'
        assert line in text
    inside = [*sites.secret, *sites.shared, THEIR_CAMERA, "strongroom", "ermine", "thief0"]
    inside += [sites.their_run["run_id"], sites.their_run["lease_token"]]
    for name in inside:
        assert name not in text
    log = sites.service.log.read_text()
    for name in (*inside, json.dumps("ours-door")):
        assert name not in log


def test_deleting_ours_leaves_theirs(sites: Sites) -> None:
    """The same id, the same image, in both."""
    here = sites.connection
    crop_id, image = sites.shared[0], shared_image(sites.image, OURS, 0)
    assert image == shared_image(sites.image, THEIRS, 0)
    here.gallery.DeleteCrop(gallery.DeleteCropRequest(gallery=OURS, crop_id=crop_id))
    with pytest.raises(grpc.RpcError):
        here.gallery.GetCrop(gallery.GetCropRequest(gallery=OURS, crop_id=crop_id))
    left = here.gallery.GetCrop(
        gallery.GetCropRequest(gallery=THEIRS, crop_id=crop_id, include_image=True)
    )
    assert left.image == image
    best = here.search.Search(search.SearchRequest(gallery=THEIRS, image=image, top_k=1))
    assert best.matches[0].crop.crop_id == crop_id
    # And again in ours, as it was: no duplicate of theirs, no conflict with it.
    again = item(OURS, 0, crop_id, image)
    (answer,) = here.gallery.IngestCrops(iter([again]))
    assert answer.outcome == Accepted
