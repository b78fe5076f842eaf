"""Calls of several galleries stand in the audit of each, with what was denied of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from google.protobuf.timestamp_pb2 import Timestamp

from resight.v1.gallery_service_pb2 import (
    CreateCameraRequest,
    IngestCropsRequest,
)
from resight.v1.search_service_pb2 import (
    GROUP_BY_CAMERA,
    Example,
    SearchBatchRequest,
    SearchRequest,
)
from resight.v1.types_pb2 import Camera, Crop
from service.access import direct
from service.domain.api_key import KeyRequest
from service.settings import load_settings
from tests.e2e.test_service_keys import ON, connected, first_key, resight

OURS = ("site-a", "site-b")
FOREIGN = "elsewhere"


def crop(gallery: str, number: int, image: bytes) -> IngestCropsRequest:
    taken = Timestamp(seconds=1_767_225_600 + number)
    return IngestCropsRequest(
        sequence=number,
        gallery=gallery,
        crop=Crop(camera_id="c", capture_time=taken),
        image=image,
    )


def test_every_gallery_of_a_call_is_told(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    data = tmp_path / "data"
    admin = first_key(data)
    limited = KeyRequest("limited", scopes=("search", "ingest"), galleries=OURS)
    key = direct.create(load_settings({"data_dir": data}), limited).text
    recorded = {"RESIGHT_AUDIT__RECORD_MATCHES": "true"}
    with start_service(data, **ON, **recorded) as service:
        with connected(service.grpc, key) as connection:
            for gallery in OURS:
                connection.gallery.CreateCamera(
                    CreateCameraRequest(gallery=gallery, camera=Camera(camera_id="c"))
                )

            def items() -> Iterator[IngestCropsRequest]:
                for number, gallery in enumerate((*OURS, *OURS, FOREIGN)):
                    yield crop(gallery, number, make_jpeg(number))

            answers = {each.sequence: each for each in connection.gallery.IngestCrops(items())}
            assert answers[4].reason == "GALLERY_NOT_ALLOWED"
            shown, example = answers[0].crop_id, answers[1].crop_id
            queries = [
                SearchRequest(gallery="site-a", image=make_jpeg(7)),
                SearchRequest(gallery="site-a", crop_id=shown),
                SearchRequest(gallery="site-b", positives=[Example(crop_id=example)]),
                SearchRequest(gallery=FOREIGN, image=make_jpeg(7)),
            ]
            connection.search.SearchBatch(SearchBatchRequest(queries=queries))
            connection.search.Search(
                SearchRequest(
                    gallery="site-b",
                    image=make_jpeg(7),
                    group_by=GROUP_BY_CAMERA,
                )
            )
        said = entries(service.rest, admin)
        report = resight(
            "audit", "report", "--data", str(data), "--output", str(tmp_path / "report.html"),
            "--csv", str(tmp_path / "csv"),
        )  # fmt: skip
    assert report.returncode == 0, report.stderr

    batch = {each["gallery"]: each["notes"] for each in said["SearchService/SearchBatch"]}
    assert batch.keys() == {*OURS, FOREIGN}
    denied = {"failed": 1, "denied": 1, "reasons": ["GALLERY_NOT_ALLOWED"]}
    assert batch[FOREIGN] == denied
    assert [name for name in denied for gallery in OURS if name in batch[gallery]] == []
    assert batch["site-a"]["queries"] == 2
    assert examples(batch["site-a"]) == [shown]
    assert batch["site-b"]["queries"] == 1
    assert examples(batch["site-b"]) == [example]
    ingested = [each for each in said["GalleryService/IngestCrops"] if each["event"] == "ended"]
    assert len(ingested) == 3
    # Of each its own, and nothing of what came of the others.
    assert {each["gallery"]: each["notes"] for each in ingested} == {
        "site-a": {"accepted": 2},
        "site-b": {"accepted": 2},
        FOREIGN: denied | {"rejected": 1},
    }
    (grouped,) = said["SearchService/Search"]
    assert grouped["notes"]["matches"] == len(grouped["notes"]["match_ids"]) == 2

    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv" / "denied.csv").read_text())))
    told = {row["what"]: row for row in rows if row["reason"] == "PERMISSION_DENIED"}
    assert told.keys() == {"SearchService/SearchBatch", "GalleryService/IngestCrops"}
    assert {row["attempts"] for row in told.values()} == {"1"}
    assert {row["code"] for row in told.values()} == {"GALLERY_NOT_ALLOWED"}
    rows = list(csv.DictReader(io.StringIO((tmp_path / "csv" / "searches.csv").read_text())))
    batches = {row["gallery"]: row for row in rows if row["what"] == "SearchService/SearchBatch"}
    answered = {name: (row["answered"], row["refused or failed"]) for name, row in batches.items()}
    assert answered == {"site-a": ("1", "0"), "site-b": ("1", "0"), FOREIGN: ("0", "1")}


def examples(notes: dict[str, Any]) -> list[str]:
    """The crops that were searched by; those of the first query apart."""
    first = [notes["query_crop_id"]] if "query_crop_id" in notes else []
    return first + notes.get("example_crop_ids", [])


def entries(rest: str, key: str) -> dict[str, list[dict[str, Any]]]:
    answer = httpx.get(
        f"http://{rest}/v1/audit",
        params={"page_size": 1000},
        headers={"authorization": f"Bearer {key}"},
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in answer.json()["entries"]:
        said = json.loads(entry["body"])
        found.setdefault(said["action"], []).append(said)
    return found
