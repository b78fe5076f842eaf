"""Filters and the own-camera switch over gRPC, REST and the command line: one answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from typer.testing import CliRunner

from resight.cli import app
from resight.client.connection import Connection, connect
from resight.v1 import gallery_service_pb2, search_service_pb2
from resight.v1.types_pb2 import AttributeTerm, Camera, Crop, CropFilter

GALLERY = "filters"
START = datetime(2026, 5, 1, tzinfo=UTC)
CROPS = 24

# Per crop number: camera, zone, track, attributes.
CAMERA = ["north", "south", "yard"]
ZONE = ["hall", "", "stairs", "hall"]
COAT = ["red", "blue", "green", None]


def stamp(minutes: float) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(START + timedelta(minutes=minutes))
    return message


def attributes(number: int) -> dict[str, str]:
    coat = COAT[number % 4]
    return ({} if coat is None else {"coat": coat}) | ({"bag": "yes"} if number % 5 == 0 else {})


@pytest.fixture(scope="module")
def connection(service: Any) -> Iterator[Connection]:
    with connect(service.grpc) as connection:
        for name in CAMERA:
            connection.gallery.CreateCamera(
                gallery_service_pb2.CreateCameraRequest(
                    gallery=GALLERY, camera=Camera(camera_id=name)
                )
            )
        yield connection


@pytest.fixture(scope="module")
def stored(connection: Connection, make_jpeg: Callable[..., bytes]) -> dict[int, str]:
    """Ids by number."""
    requests = [
        gallery_service_pb2.IngestCropsRequest(
            gallery=GALLERY,
            sequence=number,
            crop=Crop(
                camera_id=CAMERA[number % 3],
                capture_time=stamp(number),
                zone=ZONE[number % 4],
                track_id=f"t{number // 6}",
                attributes=attributes(number),
            ),
            image=make_jpeg(1200 + number),
        )
        for number in range(CROPS)
    ]
    answers = connection.gallery.IngestCrops(iter(requests))
    return {answer.sequence: answer.crop_id for answer in answers}


@pytest.fixture(scope="module")
def query(tmp_path_factory: pytest.TempPathFactory, make_jpeg: Callable[..., bytes]) -> Path:
    path = tmp_path_factory.mktemp("query") / "query.jpg"
    path.write_bytes(make_jpeg(1207))
    return path


def coat(number: int) -> str | None:
    return COAT[number % 4]


# Filter as JSON; what the form and the listing's query say; options; what passes.
CASES: list[tuple[dict[str, Any], dict[str, Any], list[str], Callable[[int], bool]]] = [
    (
        {"include_zones": ["hall", "attic"]},
        {"include_zones": ["hall", "attic"]},
        ["--zone", "hall", "--zone", "attic"],
        lambda n: ZONE[n % 4] == "hall",
    ),
    (
        {"exclude_zones": ["hall", ""]},
        {"exclude_zones": ["hall", ""]},
        ["--exclude-zone", "hall", "--exclude-zone", ""],
        lambda n: ZONE[n % 4] == "stairs",
    ),
    (
        {"include_track_ids": ["t1", "t3"], "include_camera_ids": ["yard"]},
        {"include_track_ids": ["t1", "t3"], "include_camera_ids": ["yard"]},
        ["--track", "t1", "--track", "t3", "--camera", "yard"],
        lambda n: n // 6 in (1, 3) and n % 3 == 2,
    ),
    (
        {"exclude_track_ids": ["t0"]},
        {"exclude_track_ids": ["t0"]},
        ["--exclude-track", "t0"],
        lambda n: n >= 6,
    ),
    (
        {
            "include_attributes": [{"key": "coat", "values": ["red", "blue"]}, {"key": "bag"}],
        },
        {"include_attributes": ["coat=red", "coat=blue", "bag"]},
        ["--attribute", "coat=red", "--attribute", "coat=blue", "--attribute", "bag"],
        lambda n: coat(n) in ("red", "blue") and n % 5 == 0,
    ),
    (
        {"exclude_attributes": [{"key": "coat", "values": ["red"]}, {"key": "bag"}]},
        {"exclude_attributes": ["coat=red", "bag"]},
        ["--exclude-attribute", "coat=red", "--exclude-attribute", "bag"],
        lambda n: coat(n) != "red" and n % 5 != 0,
    ),
    (
        {"include_attributes": [{"key": "coat", "values": ["mauve"]}]},
        {"include_attributes": ["coat=mauve"]},
        ["--attribute", "coat=mauve"],
        lambda _: False,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: " ".join(case[2]))
def test_every_way_to_filter_agrees(
    service: Any, connection: Connection, stored: dict[int, str], query: Path, case: Any
) -> None:
    body, flat, options, passes = case
    expected = {stored[number] for number in range(CROPS) if passes(number)}
    terms = ("include_attributes", "exclude_attributes")
    chosen = CropFilter(
        **{
            name: [AttributeTerm(**term) for term in value] if name in terms else value
            for name, value in body.items()
        }
    )
    answer = connection.search.Search(
        search_service_pb2.SearchRequest(
            gallery=GALLERY, image=query.read_bytes(), top_k=1000, filter=chosen
        )
    )
    listed = connection.gallery.ListCrops(
        gallery_service_pb2.ListCropsRequest(gallery=GALLERY, filter=chosen, page_size=1000)
    )
    url = f"http://{service.rest}/v1/galleries/{GALLERY}"
    form = httpx.post(
        f"{url}/search", files={"image": ("q.jpg", query.read_bytes())}, data=flat | {"top_k": 1000}
    ).json()
    rest = httpx.post(
        f"{url}/search", json={"crop_id": stored[0], "top_k": 1000, "filter": body}
    ).json()
    rest_listed = httpx.get(f"{url}/crops", params=flat | {"page_size": 1000}).json()
    command = ["search", str(query), "--top-k", "1000", *options]
    command += ["--target", service.grpc, "--gallery", GALLERY, "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert {match.crop.crop_id for match in answer.matches} == expected
    assert {crop.crop_id for crop in listed.crops} == expected
    assert {match["crop"]["crop_id"] for match in form["matches"]} == expected
    assert {match["crop"]["crop_id"] for match in rest["matches"]} == expected - {stored[0]}
    assert {crop["crop_id"] for crop in rest_listed["crops"]} == expected
    assert {match["crop_id"] for match in json.loads(done.stdout)["matches"]} == expected


@pytest.mark.parametrize("minutes", [None, 4])
def test_every_way_to_leave_out_the_own_camera_agrees(
    service: Any, connection: Connection, stored: dict[int, str], query: Path, minutes: int | None
) -> None:
    """The query is crop 7: camera south, minute 7."""
    expected = {
        stored[number]
        for number in range(CROPS)
        if number % 3 != 1 or (minutes is not None and abs(number - 7) > minutes)
    }
    mode = "EXCLUDE" if minutes is None else "EXCLUDE_WITHIN"
    rule: dict[str, Any] = {"own_camera": f"OWN_CAMERA_{mode}"}
    sighting: dict[str, Any] = {"query_camera_id": "south"}
    rest: dict[str, Any] = {"own_camera": mode.lower()}
    options = ["--own-camera", mode.lower().replace("_", "-"), "--query-camera", "south"]
    form: dict[str, Any] = {"query_camera_id": "south"}
    if minutes is not None:
        rule["own_camera_window"] = Duration(seconds=60 * minutes)
        sighting["query_capture_time"] = stamp(7)
        rest["own_camera_window_seconds"] = 60 * minutes
        form["query_capture_time"] = "2026-05-01T00:07:00Z"
        options += ["--own-camera-window", str(60 * minutes)]
        options += ["--query-time", "2026-05-01T00:07:00Z"]
    request = search_service_pb2.SearchRequest
    by_crop = connection.search.Search(
        request(gallery=GALLERY, crop_id=stored[7], top_k=1000, **rule)
    )
    by_image = connection.search.Search(
        request(gallery=GALLERY, image=query.read_bytes(), top_k=1000, **rule, **sighting)
    )
    url = f"http://{service.rest}/v1/galleries/{GALLERY}/search"
    by_form = httpx.post(
        url,
        files={"image": ("q.jpg", query.read_bytes())},
        data=rest | form | {"top_k": 1000},
    ).json()
    by_json = httpx.post(url, json={"crop_id": stored[7], "top_k": 1000, **rest}).json()
    command = ["search", str(query), "--top-k", "1000", *options]
    command += ["--target", service.grpc, "--gallery", GALLERY, "--json"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.stderr
    assert {match.crop.crop_id for match in by_crop.matches} == expected
    assert {match.crop.crop_id for match in by_image.matches} == expected
    assert {match["crop"]["crop_id"] for match in by_form["matches"]} == expected
    assert {match["crop"]["crop_id"] for match in by_json["matches"]} == expected
    assert {match["crop_id"] for match in json.loads(done.stdout)["matches"]} == expected


MANY = ["x"] * 1_000_000


@pytest.mark.parametrize(
    ("chosen", "field"),
    [
        (lambda: CropFilter(include_zones=MANY), "filter.include_zones"),
        (lambda: CropFilter(exclude_track_ids=MANY), "filter.exclude_track_ids"),
        (lambda: CropFilter(exclude_camera_ids=MANY), "filter.exclude_camera_ids"),
        (
            lambda: CropFilter(include_attributes=[AttributeTerm(key="k", values=MANY)]),
            "filter.include_attributes",
        ),
        (
            lambda: CropFilter(exclude_attributes=[AttributeTerm(key="k")] * 1_000_000),
            "filter.exclude_attributes",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_million_terms_are_refused(connection: Connection, chosen: Any, field: str) -> None:
    for call, request in (
        (connection.search.Search, search_service_pb2.SearchRequest(crop_id="x", filter=chosen())),
        (connection.gallery.ListCrops, gallery_service_pb2.ListCropsRequest(filter=chosen())),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "1000000" in caught.value.details()
        assert "at most 1000" in caught.value.details()
        status = rpc_status.from_call(caught.value)
        found = [
            detail
            for detail in status.details
            if detail.Is(error_details_pb2.BadRequest.DESCRIPTOR)
        ]
        bad = error_details_pb2.BadRequest()
        found[0].Unpack(bad)
        assert bad.field_violations[0].field == field


def test_long_lists_over_rest_are_problems(service: Any, connection: Connection) -> None:
    url = f"http://{service.rest}/v1/galleries/{GALLERY}"
    for filter_, status in (
        ({"include_zones": ["x"] * 1001}, 400),
        ({"include_zones": ["x"] * 100_000}, 422),
        ({"include_attributes": [{"key": "k"}] * 22_000}, 422),
        ({"include_attributes": [{"key": "k", "colour": "v"}]}, 422),
    ):
        answer = httpx.post(f"{url}/search", json={"crop_id": "x", "filter": filter_})
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert "filter" in answer.text
    assert httpx.get(f"{url}/crops", params={"include_attributes": "=red"}).status_code == 400
    both = httpx.get(f"{url}/crops", params={"include_attributes": ["coat", "coat=red"]})
    assert (both.status_code, both.json()["field"]) == (400, "include_attributes")


def test_the_command_line_refuses_what_it_cannot_read(service: Any, query: Path) -> None:
    for options in (
        ["--attribute", "=red"],
        ["--attribute", "coat", "--attribute", "coat=red"],
        ["--own-camera", "sometimes"],
        ["--query-time", "noon"],
    ):
        done = CliRunner().invoke(app, ["search", str(query), "--target", service.grpc, *options])
        assert done.exit_code == 2, done.output
