"""What callers are told while the database or the blob store is away: a reason and an id, but no
host, path, user or library of ours; the log has those.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any
from uuid import uuid4

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from resight.v1 import adaptation_service_pb2 as adaptation
from resight.v1 import admin_service_pb2 as admin
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import model_service_pb2 as models
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from tests.conftest import running_postgresql
from tests.e2e.conftest import RESIGHT, jpeg
from tests.e2e.rpcs import RPCS, Answer, call
from tests.e2e.test_access_matrix import least, reason_of

TELLING = re.compile(
    r"psycopg|sqlalchemy|sqlite|OperationalError|InterfaceError|Errno|connection to server|socket|"
    r"fsspec|Traceback|File \"|PGSQL|nobody|test_\d",
    re.IGNORECASE,
)


class Outage:
    """A service of one database and blob store, which can be taken away, and all it has said."""

    def __init__(self, service: Any, key: str, places: list[str]) -> None:
        self.headers = {"authorization": f"Bearer {key}"}
        self.channel = grpc.insecure_channel(service.grpc)
        self.client = httpx.Client(base_url=f"http://{service.rest}", timeout=60)
        self.log: Path = service.log
        self._places = places

    def ask(self, name: str, message: Any, *, as_stranger: bool = False) -> Answer:
        headers = {"authorization": f"Bearer rsk_{'0' * 16}_{'A' * 43}"}
        metadata = tuple((headers if as_stranger else self.headers).items())
        answer = call(
            self.channel, RPCS[name], [message.SerializeToString()], metadata=metadata, timeout=60
        )
        self.require_silent(name, answer.details)
        for key, value in answer.trailing:
            self.require_silent(f"{name} {key}", value)
        for each in answer.responses:
            self.require_silent(name, str(each))
        return answer

    def request(self, verb: str, path: str, **options: Any) -> httpx.Response:
        answer = self.client.request(verb, path, headers=self.headers, **options)
        self.require_silent(f"{verb} {path}", answer.content)
        self.require_silent(f"{verb} {path}", str(answer.headers))
        return answer

    def require_silent(self, what: str, said: str | bytes) -> None:
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        for place in self._places:
            assert place not in text, f"{what}: {text}"
        found = TELLING.search(text)
        assert found is None, f"{what}: {text}"


def item(number: int = 0) -> gallery.IngestCropsRequest:
    crop = Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_225_600 + number))
    return gallery.IngestCropsRequest(sequence=number, crop=crop, image=jpeg(number))


def messages(crop_id: str) -> dict[str, Any]:
    """Calls that get as far as the stores."""
    query = search.SearchRequest(image=jpeg(1), top_k=3)
    key = admin.ApiKey(display_name="more", scopes=[admin.SCOPE_SEARCH])
    return {
        "SearchService/Search": query,
        "SearchService/SearchBatch": search.SearchBatchRequest(queries=[query, query]),
        "GalleryService/CreateCamera": gallery.CreateCameraRequest(camera=Camera(camera_id="b")),
        "GalleryService/ListCameras": gallery.ListCamerasRequest(),
        "GalleryService/IngestCrops": item(9),
        "GalleryService/GetCrop": gallery.GetCropRequest(crop_id=crop_id, include_image=True),
        "GalleryService/ListCrops": gallery.ListCropsRequest(),
        "GalleryService/DeleteCrop": gallery.DeleteCropRequest(crop_id=crop_id),
        "GalleryService/GetGalleryStats": gallery.GetGalleryStatsRequest(),
        "GalleryService/VerifyGallery": gallery.VerifyGalleryRequest(),
        "ModelService/ListModels": models.ListModelsRequest(),
        "AdaptationService/StartAdaptationRun": adaptation.StartAdaptationRunRequest(holder="x"),
        "AdaptationService/ListAdaptationRuns": adaptation.ListAdaptationRunsRequest(),
        "AdminService/CreateApiKey": admin.CreateApiKeyRequest(api_key=key),
        "AdminService/ListApiKeys": admin.ListApiKeysRequest(),
        "AdminService/RevokeApiKey": admin.RevokeApiKeyRequest(key_id="0" * 16),
        "AdminService/ListAuditEntries": admin.ListAuditEntriesRequest(),
        "AdminService/VerifyAudit": admin.VerifyAuditRequest(),
        "AdminService/ListErasures": admin.ListErasuresRequest(),
    }


def requests(crop_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The same over REST."""
    below = "/v1/galleries/default"
    image = {"image": ("x.jpg", jpeg(1), "image/jpeg")}
    crop = {"camera_id": "door", "capture_time": "2026-01-01T00:01:00Z"}
    yield "POST", f"{below}/search", {"files": image}
    yield "POST", f"{below}/cameras", {"json": {"camera_id": "b"}}
    yield "GET", f"{below}/cameras", {}
    yield "POST", f"{below}/crops", {"files": image, "data": crop}
    yield "GET", f"{below}/crops/{crop_id}/image", {}
    yield "GET", f"{below}/crops", {}
    yield "DELETE", f"{below}/crops/{crop_id}", {}
    yield "GET", f"{below}/stats", {}
    yield "POST", f"{below}/verify", {"json": {}}
    yield "GET", f"{below}/models", {}
    yield "POST", f"{below}/adaptation-runs", {"json": {"holder": "x"}}
    yield "POST", "/v1/keys", {"json": {"display_name": "more", "scopes": ["search"]}}
    yield "GET", "/v1/keys", {}
    yield "POST", "/v1/keys/0000000000000000/revoke", {}
    yield "GET", "/v1/audit", {}
    yield "GET", f"{below}/erasures", {}
    yield "GET", "/readyz", {}
    yield "GET", "/healthz", {}


@contextmanager
def begun(
    start_service: Callable[..., Any], tmp_path: Path, places: list[str], **environment: str
) -> Iterator[tuple[Outage, str]]:
    key = tmp_path / "bootstrap"
    key.write_text(token_hex(32))
    key.chmod(0o600)
    settings = {
        "RESIGHT_ACCESS__AUTHENTICATION": "on",
        "RESIGHT_ACCESS__BOOTSTRAP_KEY_FILE": str(key),
        "RESIGHT_ACCESS__REFUSED_ATTEMPTS_PER_MINUTE": "0",
        "RESIGHT_BLOB_URL": f"file://{tmp_path / 'blobs'}",
        **environment,
    }
    with start_service(tmp_path / "data", **settings) as service:
        outage = Outage(service, key.read_text(), [str(tmp_path), *places])
        created = gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
        # What is not recorded within the short wait of an outage is refused on a busy machine, too.
        patiently(lambda: outage.ask("GalleryService/CreateCamera", created))
        (stored,) = patiently(lambda: outage.ask("GalleryService/IngestCrops", item())).responses
        assert stored.outcome == gallery.IngestCropsResponse.OUTCOME_ACCEPTED
        with outage.channel, outage.client:
            yield outage, stored.crop_id


def patiently(ask: Callable[[], Answer]) -> Answer:
    """The first answer that is no UNAVAILABLE: it is OK, or that it was done before."""
    deadline = time.monotonic() + 120
    while (answer := ask()).code is grpc.StatusCode.UNAVAILABLE:
        assert time.monotonic() < deadline, answer
    assert answer.code in (grpc.StatusCode.OK, grpc.StatusCode.ALREADY_EXISTS), answer
    return answer


def everything(outage: Outage, crop_id: str) -> set[str]:
    """Ask all there is; the reasons given."""
    reasons = set()
    for name, rpc in RPCS.items():
        outage.ask(name, least(rpc), as_stranger=True)
        answer = outage.ask(name, messages(crop_id).get(name) or least(rpc))
        reasons.add(reason_of(answer.trailing))
        reasons |= {getattr(each, "reason", "") for each in answer.responses}
    for verb, path, options in requests(crop_id):
        response = outage.request(verb, path, **options)
        if response.status_code >= 400 and "problem" in response.headers["content-type"]:
            problem = response.json()
            assert problem["request_id"]
            reasons.add(problem["reason"])
    return reasons


@pytest.mark.parametrize("audit", ["true", "false"])
def test_a_stopped_database_is_not_told_of(
    start_service: Callable[..., Any], tmp_path: Path, audit: str
) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(running_postgresql())
        url = server.url("postgres")
        folder = url.partition("host=")[2]
        environment = os.environ | {"RESIGHT_DATABASE_URL": url}
        subprocess.run([RESIGHT, "db", "upgrade"], env=environment, check=True, timeout=120)
        outage, crop_id = stack.enter_context(
            begun(
                start_service, tmp_path, [folder, Path(folder).name],
                RESIGHT_DATABASE_URL=url, RESIGHT_AUDIT__ENABLED=audit,
                RESIGHT_AUDIT__WAIT_SECONDS="2",
            )
        )  # fmt: skip
        server.stop()
        reasons = everything(outage, crop_id)
        assert "CATALOG_UNAVAILABLE" in reasons
        assert ("AUDIT_UNAVAILABLE" in reasons) == (audit == "true")
        # Whoever runs the service is told.
        deadline = time.monotonic() + 60
        while folder not in outage.log.read_text():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        server.start()


def test_a_broken_blob_store_is_not_told_of(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    with begun(start_service, tmp_path, []) as (outage, crop_id):
        blobs = tmp_path / "blobs"
        blobs.rename(tmp_path / "elsewhere")
        blobs.write_text("not a folder")
        (answer,) = outage.ask("GalleryService/IngestCrops", item(1)).responses
        assert answer.reason == "BLOBS_UNAVAILABLE"
        asked = gallery.GetCropRequest(crop_id=crop_id, include_image=True)
        read = outage.ask("GalleryService/GetCrop", asked)
        assert reason_of(read.trailing) == "BLOBS_UNAVAILABLE"
        image = outage.request("GET", f"/v1/galleries/default/crops/{crop_id}/image")
        assert (image.status_code, image.json()["reason"]) == (503, "BLOBS_UNAVAILABLE")
        assert "BLOBS_UNAVAILABLE" in everything(outage, crop_id)
        lines = [json.loads(line) for line in outage.log.read_text().splitlines()]
        told = [line for line in lines if str(blobs) in json.dumps(line)]
        assert told, "the log names the place"


def test_what_is_no_bundle_is_refused_without_our_folders(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    with begun(start_service, tmp_path, ["/tmp", "resight-bundle-"]) as (outage, _):
        for content in (b"no archive", b"\0" * 20_480, uuid4().bytes * 1000):
            answer = outage.request(
                "POST", "/v1/galleries/default/models",
                files={"archive": ("b.tar", content, "application/x-tar")},
            )  # fmt: skip
            assert 400 <= answer.status_code < 500, answer.text
