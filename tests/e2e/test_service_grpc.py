"""Every gRPC call against a real process; rankings against brute force in numpy."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status

from resight.client.connection import Connection, connect
from resight.v1 import embed_service_pb2, search_service_pb2
from resight.v1 import gallery_service_pb2 as gallery_pb2
from resight.v1.types_pb2 import Camera, Crop, CropFilter, Embedding, TimeRange

pytestmark = pytest.mark.parametrize("service", ["sqlite", "postgresql"], indirect=True)

START = datetime(2026, 3, 1, tzinfo=UTC)
CROPS = 24
CAMERAS = ("north", "south", "yard")


def stamp(value: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(value)
    return message


def item(gallery: str, number: int, image: bytes, **changed: Any) -> Any:
    crop = {
        "camera_id": CAMERAS[number % 3],
        "capture_time": stamp(START + timedelta(minutes=number)),
        "track_id": f"t{number // 4}",
        "attributes": {"number": str(number)},
    } | changed
    return gallery_pb2.IngestCropsRequest(
        gallery=gallery, sequence=number, crop=Crop(**crop), image=image
    )


@pytest.fixture(scope="module")
def connection(service: Any) -> Iterator[Connection]:
    with connect(service.grpc) as connection:
        yield connection


@pytest.fixture(scope="module")
def images(make_jpeg: Callable[..., bytes]) -> list[bytes]:
    return [make_jpeg(number) for number in range(CROPS)]


@pytest.fixture(scope="module")
def stored(connection: Connection, images: list[bytes]) -> dict[int, str]:
    """The ids of the crops of gallery ``site``, by number."""
    for camera in CAMERAS:
        connection.gallery.CreateCamera(
            gallery_pb2.CreateCameraRequest(
                gallery="site", camera=Camera(camera_id=camera, zone=f"{camera}-zone")
            )
        )
    answers = list(
        connection.gallery.IngestCrops(
            iter([item("site", n, image) for n, image in enumerate(images)])
        )
    )
    assert sorted(answer.sequence for answer in answers) == list(range(CROPS))
    assert all(a.outcome == gallery_pb2.IngestCropsResponse.OUTCOME_ACCEPTED for a in answers)
    return {answer.sequence: answer.crop_id for answer in answers}


@pytest.fixture(scope="module")
def vectors(connection: Connection, images: list[bytes]) -> np.ndarray:
    rows = []
    for image in images:
        answer = connection.embed.Embed(embed_service_pb2.EmbedRequest(image=image))
        rows.append(np.frombuffer(answer.embedding.values, "<f4"))
    return np.stack(rows)


def search(connection: Connection, **fields: Any) -> Any:
    return connection.search.Search(search_service_pb2.SearchRequest(gallery="site", **fields))


def ranked(query: np.ndarray, vectors: np.ndarray, rows: list[int]) -> list[int]:
    scores = vectors[rows].astype(np.float64) @ query.astype(np.float64)
    return [rows[n] for n in np.argsort(-scores, kind="stable")]


def test_embedding_is_a_unit_vector_of_the_served_model(
    service: Any, connection: Connection, images: list[bytes], vectors: np.ndarray
) -> None:
    answer = connection.embed.Embed(embed_service_pb2.EmbedRequest(image=images[0]))
    assert answer.embedding.model_version == service.model
    assert answer.embedding.dimension == vectors.shape[1] == len(answer.embedding.values) // 4
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_search_by_image_ranks_as_brute_force(
    connection: Connection, stored: dict[int, str], make_jpeg: Any, vectors: np.ndarray
) -> None:
    image = make_jpeg(1000)
    query = connection.embed.Embed(embed_service_pb2.EmbedRequest(image=image)).embedding
    expected = ranked(np.frombuffer(query.values, "<f4"), vectors, list(range(CROPS)))
    answer = search(connection, image=image, top_k=CROPS)
    assert [m.crop.crop_id for m in answer.matches] == [stored[n] for n in expected]
    assert answer.rows_scanned == answer.rows_total == CROPS
    scores = vectors[expected] @ np.frombuffer(query.values, "<f4")
    np.testing.assert_allclose([m.score for m in answer.matches], scores, atol=1e-5)
    assert len(search(connection, image=image).matches) == 10


def test_search_by_embedding_equals_search_by_image(
    connection: Connection, stored: dict[int, str], images: list[bytes]
) -> None:
    query = connection.embed.Embed(embed_service_pb2.EmbedRequest(image=images[3])).embedding
    by_image = search(connection, image=images[3], top_k=5)
    by_vector = search(connection, embedding=query, top_k=5)
    assert [m.crop for m in by_image.matches] == [m.crop for m in by_vector.matches]
    assert by_image.matches[0].crop.crop_id == stored[3]


def test_search_by_crop_leaves_the_crop_itself_out(
    connection: Connection, stored: dict[int, str], vectors: np.ndarray
) -> None:
    answer = search(connection, crop_id=stored[5], top_k=CROPS)
    others = [n for n in range(CROPS) if n != 5]
    expected = [stored[n] for n in ranked(vectors[5], vectors, others)]
    assert [m.crop.crop_id for m in answer.matches] == expected


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"include_camera_ids": ["north"]}, lambda n: n % 3 == 0),
        ({"include_camera_ids": ["north", "yard"]}, lambda n: n % 3 != 1),
        ({"exclude_camera_ids": ["south"]}, lambda n: n % 3 != 1),
        (
            {"include_camera_ids": ["north"], "exclude_camera_ids": ["north"]},
            lambda _: False,
        ),
        (
            {
                "capture_range": TimeRange(
                    start_time=stamp(START + timedelta(minutes=5)),
                    end_time=stamp(START + timedelta(minutes=12)),
                )
            },
            lambda n: 5 <= n < 12,
        ),
        (
            {"capture_range": TimeRange(start_time=stamp(START + timedelta(minutes=20)))},
            lambda n: n >= 20,
        ),
    ],
)
def test_filters_keep_exactly_what_passes(
    connection: Connection,
    stored: dict[int, str],
    vectors: np.ndarray,
    changes: dict[str, Any],
    passes: Callable[[int], bool],
) -> None:
    rows = [n for n in range(CROPS) if passes(n)]
    answer = search(
        connection,
        embedding=Embedding(
            values=vectors[0].tobytes(),
            dimension=vectors.shape[1],
            model_version=search(connection, crop_id=stored[0]).model_version,
        ),
        top_k=CROPS,
        filter=CropFilter(**changes),
    )
    expected = [stored[n] for n in ranked(vectors[0], vectors, rows)]
    assert [m.crop.crop_id for m in answer.matches] == expected


def test_min_score_cuts_the_list(
    connection: Connection, stored: dict[int, str], images: list[bytes]
) -> None:
    everything = search(connection, image=images[7], top_k=CROPS).matches
    bound = (everything[3].score + everything[4].score) / 2
    assert len(search(connection, image=images[7], top_k=CROPS, min_score=bound).matches) == 4


def test_get_list_and_delete(
    connection: Connection, stored: dict[int, str], make_jpeg: Any
) -> None:
    image = make_jpeg(77)
    (answer,) = connection.gallery.IngestCrops(
        iter([item("site", 50, image, camera_id="north", zone="gate")])
    )
    found = connection.gallery.GetCrop(
        gallery_pb2.GetCropRequest(gallery="site", crop_id=answer.crop_id, include_image=True)
    )
    assert found.image == image
    assert found.crop.sha256 == hashlib.sha256(image).digest()
    assert found.crop.zone == "gate"
    assert found.crop.attributes == {"number": "50"}
    assert found.crop.capture_time.ToDatetime(UTC) == START + timedelta(minutes=50)
    assert UUID(answer.crop_id).version == 7
    bare = connection.gallery.GetCrop(gallery_pb2.GetCropRequest(gallery="site", crop_id=stored[4]))
    assert bare.image == b""
    assert bare.crop.zone == "south-zone"
    connection.gallery.DeleteCrop(
        gallery_pb2.DeleteCropRequest(gallery="site", crop_id=answer.crop_id)
    )
    with pytest.raises(grpc.RpcError) as caught:
        connection.gallery.GetCrop(
            gallery_pb2.GetCropRequest(gallery="site", crop_id=answer.crop_id)
        )
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert details(caught.value, error_details_pb2.ResourceInfo).resource_type == "crop_id"
    ids = {m.crop.crop_id for m in search(connection, image=image, top_k=100).matches}
    assert answer.crop_id not in ids


def test_listing_pages_through_everything_in_order(
    connection: Connection, stored: dict[int, str]
) -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = connection.gallery.ListCrops(
            gallery_pb2.ListCropsRequest(gallery="site", page_size=7, page_token=token)
        )
        seen += [crop.crop_id for crop in page.crops]
        token = page.next_page_token
        if not token:
            break
    assert seen == [stored[n] for n in range(CROPS)]
    cameras = connection.gallery.ListCameras(gallery_pb2.ListCamerasRequest(gallery="site"))
    assert [camera.camera_id for camera in cameras.cameras] == sorted(CAMERAS)


def test_stats_count_the_gallery(
    service: Any, connection: Connection, stored: dict[int, str], vectors: np.ndarray
) -> None:
    stats = connection.gallery.GetGalleryStats(gallery_pb2.GetGalleryStatsRequest(gallery="site"))
    assert (stats.crops, stats.searchable, stats.cameras) == (CROPS, CROPS, 3)
    assert (stats.model_version, stats.dimension) == (service.model, vectors.shape[1])
    assert stats.oldest_capture_time.ToDatetime(UTC) == START


def test_registering_a_camera_again(connection: Connection, stored: dict[int, str]) -> None:
    same = Camera(camera_id="north", zone="north-zone")
    request = gallery_pb2.CreateCameraRequest(gallery="site", camera=same)
    assert connection.gallery.CreateCamera(request).camera.zone == "north-zone"
    request.camera.zone = "elsewhere"
    with pytest.raises(grpc.RpcError) as caught:
        connection.gallery.CreateCamera(request)
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_bad_item_is_rejected_and_the_stream_goes_on(
    connection: Connection, stored: dict[int, str], images: list[bytes], make_jpeg: Any
) -> None:
    items = [
        item(
            "site",
            100,
            images[0],
            camera_id="north",
            capture_time=stamp(START),
            track_id="t0",
        ),
        item("site", 101, b"not an image"),
        item("site", 102, make_jpeg(102), camera_id="cellar"),
        item("site", 103, make_jpeg(103), capture_time=None),
        item("nowhere", 104, make_jpeg(104)),
        item("site", 105, make_jpeg(105)),
    ]
    answers = {a.sequence: a for a in connection.gallery.IngestCrops(iter(items))}
    outcome = gallery_pb2.IngestCropsResponse.Outcome
    found = {n: (outcome.Name(a.outcome), a.reason) for n, a in answers.items()}
    assert found == {
        100: ("OUTCOME_DUPLICATE", "DUPLICATE"),
        101: ("OUTCOME_REJECTED", "UNDECODABLE_IMAGE"),
        102: ("OUTCOME_REJECTED", "CAMERA_NOT_REGISTERED"),
        103: ("OUTCOME_REJECTED", "INVALID_ARGUMENT"),
        104: ("OUTCOME_REJECTED", "GALLERY_NOT_FOUND"),
        105: ("OUTCOME_ACCEPTED", ""),
    }
    assert answers[100].crop_id == stored[0]
    connection.gallery.DeleteCrop(
        gallery_pb2.DeleteCropRequest(gallery="site", crop_id=answers[105].crop_id)
    )


def test_an_image_the_encoder_fails_on_fails_only_its_own_caller(
    connection: Connection, images: list[bytes], white_png: bytes
) -> None:
    queries = (images * 2)[:40]
    queries[17] = white_png
    queries[31] = b"\xff\xd8\xff truncated"

    def embed(image: bytes) -> grpc.StatusCode:
        try:
            connection.embed.Embed(embed_service_pb2.EmbedRequest(image=image))
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(40) as pool:
        codes = list(pool.map(embed, queries))
    assert codes[17] is grpc.StatusCode.INTERNAL
    assert codes[31] is grpc.StatusCode.INVALID_ARGUMENT
    assert {code for n, code in enumerate(codes) if n not in (17, 31)} == {grpc.StatusCode.OK}


def test_health_names_every_service_and_reflection_lists_them(connection: Connection) -> None:
    health = health_pb2_grpc.HealthStub(connection.channel)
    names = [f"resight.v1.{name}Service" for name in ("Embed", "Gallery", "Search")]
    for name in ["", *names]:
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        health.Check(health_pb2.HealthCheckRequest(service="resight.v1.Nothing"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    listed = ProtoReflectionDescriptorDatabase(connection.channel).get_services()
    assert set(names) <= set(listed)


def test_a_client_that_leaves_in_mid_stream_harms_nobody(
    connection: Connection, stored: dict[int, str], make_jpeg: Any
) -> None:
    def endless() -> Iterator[Any]:
        for number in range(2000, 2400):
            yield item("site", number, make_jpeg(number), camera_id="yard")

    call = connection.gallery.IngestCrops(endless())
    accepted = [next(call).crop_id for _ in range(5)]
    call.cancel()
    for crop_id in accepted:
        found = connection.gallery.GetCrop(
            gallery_pb2.GetCropRequest(gallery="site", crop_id=crop_id)
        )
        assert found.crop.crop_id == crop_id
    kept = CropFilter(capture_range=TimeRange(start_time=stamp(START + timedelta(minutes=2000))))
    while rest := connection.gallery.ListCrops(
        gallery_pb2.ListCropsRequest(gallery="site", filter=kept)
    ).crops:
        for crop in rest:
            connection.gallery.DeleteCrop(
                gallery_pb2.DeleteCropRequest(gallery="site", crop_id=crop.crop_id)
            )


def details(error: Any, kind: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            message = kind()
            packed.Unpack(message)
            return message
    raise AssertionError(f"no {kind.__name__} in {status}")
