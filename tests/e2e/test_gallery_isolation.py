"""Two galleries with the same cameras, ids and images; from one, every way to reach the other.

What belongs to the other gallery must look, over each call and both transports, exactly like what
does not exist: the same status, reason and words.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import RequestInfo
from grpc_status import rpc_status

from resight.bundle import open_bundle, pack
from resight.client.connection import Connection, connect
from resight.v1 import adaptation_service_pb2 as runs
from resight.v1 import embed_service_pb2 as embedding
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import AttributeTerm, Camera, Crop, CropFilter, Embedding

pytestmark = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)

OURS, THEIRS = "ours", "theirs"
START = 1_767_225_600
SHARED = 12  # crops of both, under the same ids
SECRET = 8  # crops of theirs alone
NOBODY = str(UUID(int=10**30))
NO_CAMERA = "attic"
THEIR_CAMERA = "vault"
Accepted = gallery.IngestCropsResponse.OUTCOME_ACCEPTED


class Sites(NamedTuple):
    """The two galleries behind one service."""

    service: Any
    connection: Connection
    shared: list[str]
    secret: list[str]
    image: Callable[[int], bytes]
    our_run: dict[str, str]
    their_run: dict[str, str]
    their_model: str

    def url(self, name: str = OURS) -> str:
        return f"http://{self.service.rest}/v1/galleries/{name}"


def shared_image(make_jpeg: Callable[[int], bytes], name: str, number: int) -> bytes:
    """The even crops are of one image in both galleries, the odd ones of another in each."""
    return make_jpeg(7000 + number + (100 if number % 2 and name == THEIRS else 0))


@pytest.fixture(scope="module")
def sites(
    service: Any,
    make_jpeg: Callable[[int], bytes],
    make_bundle: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Sites]:
    with connect(service.grpc) as connection:
        for name, cameras in ((OURS, ["door", "hall"]), (THEIRS, ["door", "hall", THEIR_CAMERA])):
            for camera in cameras:
                connection.gallery.CreateCamera(
                    gallery.CreateCameraRequest(
                        gallery=name, camera=Camera(camera_id=camera, display_name=f"{name}-door")
                    )
                )
        shared = [str(UUID(int=number + 1)) for number in range(SHARED)]
        secret = [str(UUID(int=number + 1000)) for number in range(SECRET)]
        # Both galleries and every item in one stream.
        items = [
            item(name, number, shared[number], shared_image(make_jpeg, name, number))
            for number in range(SHARED)
            for name in (OURS, THEIRS)
        ]
        items += [
            item(
                THEIRS, number + 1000, secret[number], make_jpeg(7500 + number),
                camera=THEIR_CAMERA, zone="strongroom", attributes={"coat": "ermine"},
                track=f"thief{number // 4}",
            )
            for number in range(SECRET)
        ]  # fmt: skip
        for place, request in enumerate(items):
            request.sequence = place
        answers = list(connection.gallery.IngestCrops(iter(items)))
        assert {answer.outcome for answer in answers} == {Accepted}, "the other's crop was seen"
        assert len(answers) == 2 * SHARED + SECRET
        our_run, their_run = begun(connection, OURS), begun(connection, THEIRS)
        bundle = make_bundle(tmp_path_factory.mktemp("other") / "bundle")
        register(connection, bundle, their_run)
        yield Sites(
            service, connection, shared, secret, make_jpeg, our_run, their_run,
            open_bundle(bundle).model_version,
        )  # fmt: skip


def item(
    name: str, number: int, crop_id: str, image: bytes, *, camera: str = "", zone: str = "",
    track: str = "", attributes: dict[str, str] | None = None,
) -> Any:  # fmt: skip
    crop = Crop(
        crop_id=crop_id, camera_id=camera or ("door", "hall")[number % 2], zone=zone,
        track_id=track or f"t{number // 4}", attributes=attributes or {},
        capture_time=Timestamp(seconds=START + number),
    )  # fmt: skip
    return gallery.IngestCropsRequest(gallery=name, sequence=number, crop=crop, image=image)


def begun(connection: Connection, name: str) -> dict[str, str]:
    """A run that holds its gallery's lease, though the other gallery's is held."""
    started = connection.adaptation.StartAdaptationRun(
        runs.StartAdaptationRunRequest(
            gallery=name, holder=f"{name}-night", lease_duration=Duration(seconds=600)
        )
    )
    return {"gallery": name, "run_id": started.run.run_id, "lease_token": started.lease_token}


def register(connection: Connection, bundle: Path, run: dict[str, str]) -> None:
    archive = bundle.with_suffix(".tar")
    pack(bundle, archive)
    data = archive.read_bytes()
    gate = models.GateVerdict(outcome=models.GateVerdict.OUTCOME_PASSED, score=0.5)
    upload = models.ModelUpload(
        **run, sha256=hashlib.sha256(data).digest(), size_bytes=len(data), gate=gate
    )
    connection.models.RegisterModel(
        iter([models.RegisterModelRequest(upload=upload), models.RegisterModelRequest(chunk=data)])
    )


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


# By what a stranger could name; each is a call with gallery OURS.
def with_crop(sites: Sites, crop_id: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection
    ours = {"gallery": OURS}
    mine = search.Example(crop_id=sites.shared[0])
    other = search.Example(crop_id=crop_id)
    return {
        "get": lambda: here.gallery.GetCrop(gallery.GetCropRequest(**ours, crop_id=crop_id)),
        "image": lambda: here.gallery.GetCrop(
            gallery.GetCropRequest(**ours, crop_id=crop_id, include_image=True)
        ),
        "delete": lambda: here.gallery.DeleteCrop(
            gallery.DeleteCropRequest(**ours, crop_id=crop_id)
        ),
        "search": lambda: here.search.Search(search.SearchRequest(**ours, crop_id=crop_id)),
        "positive": lambda: here.search.Search(
            search.SearchRequest(**ours, positives=[mine, other])
        ),
        "negative": lambda: here.search.Search(
            search.SearchRequest(**ours, positives=[mine], negatives=[other])
        ),
        "nearest": lambda: here.search.Search(
            search.SearchRequest(**ours, positives=[mine, other], fusion=search.FUSION_MAX)
        ),
        "batch": lambda: here.search.SearchBatch(
            search.SearchBatchRequest(queries=[search.SearchRequest(gallery=OURS, crop_id=crop_id)])
        ),
        "track": lambda: here.search.TrackPerson(
            search.TrackPersonRequest(
                query=search.SearchRequest(**ours, crop_id=crop_id, min_score=0.0)
            )
        ),
    }


def with_camera(sites: Sites, camera: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection
    image = sites.image(7500)
    hop = search.TravelTime(
        from_camera_id="door", to_camera_id=camera, min_seconds=1, typical_seconds=2, max_seconds=3
    )
    return {
        "include": lambda: here.search.Search(
            search.SearchRequest(
                gallery=OURS, image=image, filter=CropFilter(include_camera_ids=[camera])
            )
        ),
        "exclude": lambda: here.search.Search(
            search.SearchRequest(
                gallery=OURS, image=image, filter=CropFilter(exclude_camera_ids=[camera])
            )
        ),
        "list": lambda: here.gallery.ListCrops(
            gallery.ListCropsRequest(gallery=OURS, filter=CropFilter(include_camera_ids=[camera]))
        ),
        "own camera": lambda: here.search.Search(
            search.SearchRequest(
                gallery=OURS,
                image=image,
                own_camera=search.OWN_CAMERA_EXCLUDE,
                query_camera_id=camera,
            )
        ),
        "ingest": lambda: here.gallery.IngestCrops(
            iter([item(OURS, 5, "", sites.image(7500), camera=camera)])
        ),
        "travel times": lambda: here.search.TrackPerson(
            search.TrackPersonRequest(
                query=search.SearchRequest(gallery=OURS, image=image, min_score=0.0),
                travel_times=[hop],
            )
        ),
        "stream": lambda: here.adaptation.StreamAdaptationCrops(
            runs.StreamAdaptationCropsRequest(**sites.our_run, camera_ids=[camera])
        ),
    }


def with_run(sites: Sites, run_id: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection.adaptation
    held = {"gallery": OURS, "run_id": run_id, "lease_token": sites.their_run["lease_token"]}
    named = {"gallery": OURS, "run_id": run_id}
    failed = runs.AdaptationRun.STATE_FAILED
    return {
        "get": lambda: here.GetAdaptationRun(runs.GetAdaptationRunRequest(**named)),
        "crops": lambda: here.ListAdaptationRunCrops(runs.ListAdaptationRunCropsRequest(**named)),
        "stream": lambda: here.StreamAdaptationCrops(runs.StreamAdaptationCropsRequest(**held)),
        "heartbeat": lambda: here.HeartbeatAdaptationRun(
            runs.HeartbeatAdaptationRunRequest(**held)
        ),
        "report": lambda: here.ReportAdaptationRun(runs.ReportAdaptationRunRequest(**held)),
        "finish": lambda: here.FinishAdaptationRun(
            runs.FinishAdaptationRunRequest(**held, state=failed)
        ),
        "register": lambda: sites.connection.models.RegisterModel(
            iter(
                [
                    models.RegisterModelRequest(
                        upload=models.ModelUpload(**held, sha256=bytes(32), size_bytes=100)
                    )
                ]
            )
        ),
    }


def with_model(sites: Sites, version: str) -> dict[str, Callable[[], Any]]:
    here = sites.connection
    vector = np.full(96, 96**-0.5, "<f4").tobytes()
    known = Embedding(values=vector, dimension=96, model_version=version)
    return {
        "get": lambda: here.models.GetModel(
            models.GetModelRequest(gallery=OURS, model_version=version)
        ),
        "search": lambda: here.search.Search(search.SearchRequest(gallery=OURS, embedding=known)),
    }


KINDS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Sites], tuple[str, str]]]] = {
    "crop": (with_crop, lambda sites: (sites.secret[3], NOBODY)),
    "camera": (with_camera, lambda _: (THEIR_CAMERA, NO_CAMERA)),
    "run": (with_run, lambda sites: (sites.their_run["run_id"], NOBODY)),
    "model": (with_model, lambda sites: (sites.their_model, "0" * len(sites.their_model))),
}


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
    client = HTTPConnection(sites.service.rest, timeout=30)
    try:
        client.request("GET", f"/v1/galleries/{path}")
        answer = client.getresponse()
        text = answer.read().decode()
    finally:
        client.close()
    assert answer.status in (400, 404)
    for name in sites.secret:
        assert name not in text


def listed(sites: Sites, name: str, **chosen: Any) -> list[str]:
    answer = sites.connection.gallery.ListCrops(
        gallery.ListCropsRequest(gallery=name, page_size=1000, filter=CropFilter(**chosen))
    )
    return [crop.crop_id for crop in answer.crops]


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
    """The last test: the same id, the same image, in both."""
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
    # And again in ours: no duplicate of theirs, no conflict with it.
    again = item(OURS, 0, crop_id, image)
    (answer,) = here.gallery.IngestCrops(iter([again]))
    assert answer.outcome == Accepted
