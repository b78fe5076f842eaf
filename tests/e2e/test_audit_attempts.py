"""What was tried in vain stands in the audit: why it failed, and of what; and what was read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from resight.v1.adaptation_service_pb2 import ReportAdaptationRunRequest
from resight.v1.gallery_service_pb2 import CreateCameraRequest, IngestCropsRequest
from resight.v1.search_service_pb2 import SearchBatchRequest, SearchRequest
from resight.v1.types_pb2 import Camera, Crop, CropFilter
from tests.e2e.adaptation_runs import held, start
from tests.e2e.attempts_table import ATTEMPTS, GONE, Attempt
from tests.e2e.rpcs import RPCS, call
from tests.e2e.test_service_keys import ON, connected, first_key, resight

Said = dict[str, Any]
UNLIMITED = {
    "name": "first", "scopes": ["search", "ingest", "models", "admin", "audit"], "galleries": [],
    "cameras": [], "captured_from": None, "captured_before": None, "requests_per_minute": 0,
    "requests_per_day": 0, "expire_time": None,
}  # fmt: skip
# Streams of many things, and a batch: their parts fail, and they do not.
IN_PARTS = {"GalleryService/IngestCrops", "SearchService/SearchBatch"}


@dataclass(frozen=True)
class Night:
    """What a service did, and the audit of it."""

    crops: Mapping[str, str]
    run: str
    keys: Mapping[str, str]
    entries: list[Said]

    def of(self, purpose: str) -> list[Said]:
        """The entries of the calls that were made for this."""
        return [each for each in self.entries if each.get("purpose") == purpose]

    def ended(self, purpose: str) -> Said:
        (found,) = (each for each in self.of(purpose) if each["event"] != "began")
        return found


def filled(value: Any, crops: Mapping[str, str]) -> Any:
    """What the table says, with the ids of crops that are there."""
    if isinstance(value, str):
        return re.sub(r"\{(door|hall)\}", lambda found: crops[found[1]], value)
    if isinstance(value, Mapping):
        return {name: filled(each, crops) for name, each in value.items()}
    return [filled(each, crops) for each in value] if isinstance(value, list) else value


def purpose(number: int, protocol: str) -> str:
    return f"attempt {number} {protocol}"


def over_grpc(channel: Any, attempt: Attempt, message: Any, **headers: str) -> None:
    rpc = RPCS[attempt.rpc]
    request = json_format.ParseDict(message, rpc.request())
    answer = call(channel, rpc, [request.SerializeToString()], metadata=tuple(headers.items()))
    assert answer.code is not grpc.StatusCode.OK, attempt


def over_rest(client: httpx.Client, attempt: Attempt, message: Any, sent: Any, path: str) -> None:
    gallery = message.pop("gallery", "default")
    place = path if path.startswith("/") else f"/v1/galleries/{gallery}/{path}"
    if attempt.verb == "POST" and message and not sent:
        sent = {"json": message}
    answer = client.request(attempt.verb, place, **sent)
    assert answer.status_code >= 400, attempt


def stocked(connection: Any, make_jpeg: Callable[..., bytes]) -> dict[str, str]:
    crops = {}
    for number, camera in enumerate(("door", "hall")):
        connection.gallery.CreateCamera(CreateCameraRequest(camera=Camera(camera_id=camera)))
        taken = Timestamp(seconds=1_767_225_600 + number)
        item = IngestCropsRequest(
            crop=Crop(camera_id=camera, capture_time=taken), image=make_jpeg(number)
        )
        (answer,) = connection.gallery.IngestCrops(iter([item]))
        crops[camera] = answer.crop_id
    return crops


def in_parts(target: str, key: str, crops: Mapping[str, str], image: bytes) -> None:
    """A batch and a stream of somebody limited, both of what they may and what they may not."""
    told = [("authorization", f"Bearer {key}"), ("resight-purpose", "in parts")]
    far = CropFilter(include_camera_ids=["hall"])
    queries = [
        SearchRequest(crop_id=crops["door"]),
        SearchRequest(crop_id=crops["door"], filter=far),
        SearchRequest(crop_id=crops["hall"]),
    ]
    crop = Crop(camera_id="hall", capture_time=Timestamp(seconds=1_767_225_600))
    with grpc.insecure_channel(target) as channel:
        for name, request in (
            ("SearchService/SearchBatch", SearchBatchRequest(queries=queries)),
            ("GalleryService/IngestCrops", IngestCropsRequest(crop=crop, image=image)),
        ):
            sent = request.SerializeToString()
            answer = call(channel, RPCS[name], [sent], metadata=told)
            assert answer.code is grpc.StatusCode.OK, answer.details


def read(client: httpx.Client, run: Any, crops: Mapping[str, str]) -> None:
    """What is looked at: the records of a run, and lists."""
    lease = {"Resight-Lease": run.lease_token}
    path = f"/v1/galleries/default/adaptation-runs/{run.run.run_id}"
    calls: tuple[tuple[str, str, Any], ...] = (
        ("GET", path, {}),
        ("GET", f"{path}/crops", {}),
        ("POST", f"{path}/heartbeat", {"json": {}, "headers": lease}),
        ("POST", f"{path}/check", {"json": {"crop_ids": [crops["door"], GONE]}, "headers": lease}),
        ("GET", "/v1/galleries/default/adaptation-runs", {}),
        ("GET", "/v1/galleries/default/cameras", {}),
        ("GET", "/v1/galleries/default/models", {}),
        ("GET", "/v1/keys", {}),
    )
    for verb, place, more in calls:
        client.request(verb, place, **more).raise_for_status()


@pytest.fixture(scope="module")
def night(
    start_service: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, make_jpeg: Any
) -> Night:
    folder = tmp_path_factory.mktemp("attempts")
    data = folder / "data"
    keys = {"admin": first_key(data), "limited": first_key(data, camera_ids=["door"])}
    with start_service(data, **ON) as service:
        with connected(service.grpc, keys["admin"]) as connection:
            crops = stocked(connection, make_jpeg)
            run = start(connection)
            used = {"new_crop_ids": [crops["door"]], "replay_crop_ids": [crops["hall"]]}
            lease: Any = held(run) | used
            connection.adaptation.ReportAdaptationRun(ReportAdaptationRunRequest(**lease))
        with grpc.insecure_channel(service.grpc) as channel:
            for number, attempt in enumerate(ATTEMPTS):
                message = filled(attempt.message, crops)
                shown = {
                    "authorization": f"Bearer {keys[attempt.who]}",
                    "resight-purpose": quote(purpose(number, "grpc")),
                }
                over_grpc(channel, attempt, message, **shown)
                shown["resight-purpose"] = quote(purpose(number, "rest"))
                with httpx.Client(
                    base_url=f"http://{service.rest}", headers=shown, timeout=60
                ) as client:
                    sent = filled(attempt.sent, crops)
                    over_rest(client, attempt, message, sent, filled(attempt.path, crops))
        in_parts(service.grpc, keys["limited"], crops, make_jpeg(9))
        shown = {"authorization": f"Bearer {keys['limited']}", "resight-purpose": "one crop"}
        form = {"camera_id": "hall", "capture_time": "2026-01-01T00:00:00Z"}
        httpx.post(
            f"http://{service.rest}/v1/galleries/default/crops", headers=shown,
            files={"image": make_jpeg(9)}, data=form, timeout=60,
        ).close()  # fmt: skip
        shown = {"authorization": f"Bearer {keys['admin']}", "resight-purpose": "reading"}
        with httpx.Client(base_url=f"http://{service.rest}", headers=shown, timeout=60) as client:
            read(client, run, crops)
            misplaced(client, keys["admin"])
        assert service.stop() == 0
    exported = folder / "audit.jsonl"
    done = resight("audit", "export", "--data", str(data), "--output", str(exported))
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line)["entry"] for line in exported.read_text().splitlines()]
    return Night(crops, run.run.run_id, keys, entries)


def misplaced(client: httpx.Client, key: str) -> None:
    """A key where a name belongs."""
    more = {"resight-purpose": f"by%20{key}"}
    body = {"crop_id": GONE, "filter": {"include_camera_ids": [key]}}
    client.post("/v1/galleries/default/search", json=body, headers=more)
    client.post("/v1/galleries/default/cameras", json={"camera_id": key})
    client.post(f"/v1/galleries/default/models/{key}/retire", json={"reason": key})
    client.get("/v1/galleries/default/crops", params={key: "1"})
    client.get("/v1/galleries/default/crops", params={"include_zones": key})


def test_every_rpc_is_tried() -> None:
    assert {attempt.rpc for attempt in ATTEMPTS} == RPCS.keys() - IN_PARTS


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("number", range(len(ATTEMPTS)), ids=lambda n: ATTEMPTS[n].rpc)
def test_an_attempt_is_told(night: Night, number: int, protocol: str) -> None:
    attempt = ATTEMPTS[number]
    said = night.ended(purpose(number, protocol))
    assert (said["action"], said["protocol"]) == (attempt.rpc, protocol)
    assert said["outcome"] != "OK"
    assert said["reason"] == attempt.reason
    assert attempt.named in (None, said.get("field"))
    noted = filled(attempt.notes, night.crops)
    assert {name: said["notes"].get(name) for name in noted} == noted
    began = [each for each in night.of(purpose(number, protocol)) if each["event"] == "began"]
    assert len(began) == (0 if attempt.begins is None else 1)
    for each in began:
        assert attempt.begins is not None
        assert {name: each["notes"].get(name) for name in attempt.begins} == attempt.begins


def test_whatever_is_not_answered_says_why_in_a_word_of_ours(night: Night) -> None:
    failed = [each for each in night.entries if each.get("outcome", "OK") != "OK"]
    assert len(failed) >= 2 * len(ATTEMPTS)
    assert [each for each in failed if not re.fullmatch("[A-Z][A-Z_]+", each["reason"])] == []
    assert [each for each in night.entries if "reason" in each and each not in failed] == []


def test_the_parts_that_fail_are_counted_with_their_reasons(night: Night) -> None:
    ended = {each["action"]: each["notes"] for each in night.of("in parts") if "outcome" in each}
    batch = ended["SearchService/SearchBatch"]
    assert (batch["queries"], batch["failed"], batch["denied"]) == (3, 2, 1)
    assert batch["reasons"] == ["CAMERA_NOT_ALLOWED", "CROP_NOT_FOUND"]
    assert batch["other_cameras"] == ["hall"]
    crops = night.crops
    assert batch["query_crop_id"] == crops["door"]
    assert batch["example_crop_ids"] == [crops["door"], crops["hall"]]
    stream = ended["GalleryService/IngestCrops"]
    assert (stream["failed"], stream["denied"]) == (1, 1)
    assert stream["reasons"] == ["CAMERA_NOT_ALLOWED"]
    one = night.ended("one crop")
    assert (one["reason"], one["notes"]["camera_id"]) == ("CAMERA_NOT_ALLOWED", "hall")


def test_what_is_read_says_of_which_run_and_how_much(night: Night) -> None:
    noted = {
        each["action"].partition("/")[2]: each["notes"]
        for each in night.of("reading")
        if each.get("outcome") == "OK"
    }
    assert noted["GetAdaptationRun"] == {"run_id": night.run}
    assert noted["HeartbeatAdaptationRun"] == {"run_id": night.run}
    assert noted["ListAdaptationRunCrops"] == {"run_id": night.run, "crops": 2}
    assert noted["CheckAdaptationCrops"] == {"run_id": night.run, "crops": 2, "missing": 1}
    assert noted["ListAdaptationRuns"] == {"runs": 1}
    assert noted["ListCameras"] == {"cameras": 2}
    assert noted["ListModels"] == {"models": 1}
    assert noted["ListApiKeys"] == {"keys": 2}
    [reported] = [
        each["notes"] for each in night.entries
        if each["action"] == "AdaptationService/ReportAdaptationRun"
        and each.get("outcome") == "OK"
    ]  # fmt: skip
    assert reported == {"run_id": night.run, "new_crops": 1, "replay_crops": 1}


def test_a_key_is_told_with_its_limits_when_the_catalog_makes_it_too(night: Night) -> None:
    made = [
        each for each in night.entries
        if each["action"] == "AdminService/CreateApiKey" and each["protocol"] == "command"
    ]  # fmt: skip
    assert [each["event"] for each in made] == ["began", "ended"] * 2
    limits = []
    for each in made:
        notes = dict(each["notes"])
        assert notes.pop("key_id") in "".join(night.keys.values())
        limits.append(notes)
    assert limits == [UNLIMITED] * 2 + [UNLIMITED | {"cameras": ["door"]}] * 2


def test_a_key_in_the_wrong_place_is_not_written_down(night: Night) -> None:
    text = json.dumps(night.entries)
    for key in night.keys.values():
        assert key.split("_", 2)[2] not in text
        assert key[:40] not in text
    hidden = {each["action"] for each in night.entries if "(credential)" in json.dumps(each)}
    assert hidden == {
        "SearchService/Search", "GalleryService/CreateCamera", "ModelService/RetireModel",
        "GalleryService/ListCrops",
    }  # fmt: skip
