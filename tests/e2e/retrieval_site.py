"""A gallery of known vectors behind a real service, and ways to ask it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from resight.bundle.attachments import Attachments, attach
from resight.client.connection import Connection, connect
from resight.v1 import bundle_pb2, embed_service_pb2, gallery_service_pb2
from resight.v1 import search_service_pb2 as search_pb2
from resight.v1.types_pb2 import Camera, Crop

__all__ = [
    "CAMERAS",
    "CROPS",
    "DATABASES",
    "INTERCEPT",
    "SLOPE",
    "START",
    "Site",
    "calibrated",
    "crop_ids",
    "example",
    "pages",
    "refused",
    "served_site",
    "stamp",
]

DATABASES = pytest.mark.parametrize("site", ["sqlite", "postgresql"], indirect=True)
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


def calibrated(bundle: Path) -> Path:
    """The bundle with a calibration of known line."""
    kinds = bundle_pb2.ScoreCalibration
    fitted = kinds(form=kinds.FORM_LOGISTIC, slope=SLOPE, intercept=INTERCEPT, prior=0.1)
    attach(bundle, Attachments(calibration=fitted))
    return bundle


@contextmanager
def served_site(service: Any, make_jpeg: Callable[[int], bytes]) -> Iterator[Site]:
    """The site of a running service, filled."""
    with (
        connect(service.grpc) as connection,
        httpx.Client(base_url=f"http://{service.rest}/v1/galleries/site", timeout=120) as client,
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


def pages(ask: Callable[..., Any], **fields: Any) -> list[str]:
    found, token = [], ""
    while True:
        answer = ask(page_token=token, **fields)
        found += crop_ids(answer)
        token = answer["next_page_token"] if isinstance(answer, dict) else answer.next_page_token
        if not token:
            return found


def example(site: Site, number: int, **fields: Any) -> search_pb2.Example:
    return search_pb2.Example(crop_id=site.ids[number], **fields)
