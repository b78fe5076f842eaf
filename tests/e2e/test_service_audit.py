"""The audit of real processes: what was answered stands in it, whatever happens to the process."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import httpx
import pytest
from sqlalchemy import create_engine, text

from resight.v1 import search_service_pb2, search_service_pb2_grpc
from tests.e2e import forked

RESIGHT = Path(sys.executable).with_name("resight")
G = "/v1/galleries/default"


def command(*arguments: str, environment: dict[str, str] | None = None) -> Any:
    """A command's exit code and JSON."""
    told = os.environ | (environment or {})
    done = forked.completed(["audit", *arguments, "--json"], told, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def bodies(data: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Every entry, as the database has it."""
    url = environment.get("RESIGHT_DATABASE_URL", f"sqlite:///{data}/catalog.sqlite")
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            rows = connection.execute(
                text("SELECT body FROM audit_entries ORDER BY chain_id, sequence")
            ).all()
        return [json.loads(row.body) for row in rows]
    finally:
        engine.dispose()


def filled(client: httpx.Client, make_jpeg: Callable[..., bytes], count: int = 2) -> list[str]:
    """Crops of camera c1; their ids."""
    client.post(f"{G}/cameras", json={"camera_id": "c1"}).raise_for_status()
    found = []
    for number in range(count):
        answer = client.post(
            f"{G}/crops",
            files={"image": ("crop.jpg", make_jpeg(number))},
            data={"camera_id": "c1", "capture_time": f"2026-02-01T00:{number:02d}:00+00:00"},
        )
        answer.raise_for_status()
        found.append(answer.json()["crop_id"])
    return found


@contextmanager
def client_of(service: Any) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://{service.rest}", timeout=60) as client:
        yield client


def test_whatever_was_answered_before_a_kill_stands_in_the_audit(
    start_service: Any, tmp_path: Path, catalog: dict[str, str], make_jpeg: Any
) -> None:
    data = tmp_path / "data"
    anchors = f"file://{tmp_path}/anchors"
    environment = {
        **catalog,
        "RESIGHT_AUDIT__CHECKPOINT_ENTRIES": "20",
        "RESIGHT_AUDIT__ANCHOR_URL": anchors,
    }
    answered: list[str] = []
    stop = threading.Event()
    with start_service(data, **environment) as service:
        with client_of(service) as client:
            [crop, _] = filled(client, make_jpeg)

        def ask(worker: int) -> None:
            with grpc.insecure_channel(service.grpc) as channel:
                stub = search_service_pb2_grpc.SearchServiceStub(channel)
                number = 0
                while not stop.is_set():
                    number += 1
                    purpose = f"load {worker}/{number}"
                    header = (("resight-purpose", quote(purpose)),)
                    try:
                        stub.Search(search_service_pb2.SearchRequest(crop_id=crop), metadata=header)
                    except grpc.RpcError:
                        return
                    answered.append(purpose)

        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(ask, worker) for worker in range(4)]
            deadline = time.monotonic() + 240
            while len(answered) < 200 and time.monotonic() < deadline:
                time.sleep(0.01)
            service.process.kill()
            service.process.wait()
            stop.set()
            for each in asking:
                each.result()
    assert len(answered) >= 200
    with start_service(data, **environment) as service:
        code, verdict = command("verify", "--target", service.grpc)
        assert (code, verdict["sound"]) == (0, True)
        assert verdict["chains"] == 2
    recorded = {body.get("purpose") for body in bodies(data, catalog)}
    assert set(answered) <= recorded
    code, verdict = command("keys", "--data", str(data), "--output", str(tmp_path / "keys"),
                            environment=catalog)  # fmt: skip
    [key] = (tmp_path / "keys").iterdir()
    trusted = ["--data", str(data), "--anchors", anchors, "--public-key", str(key)]
    code, verdict = command("verify", *trusted, environment=catalog)
    assert (code, verdict["faults"], verdict["keys_given"]) == (0, [], True)
    assert verdict["anchors"] == verdict["checkpoints"]
    # That the service was asked to verify itself, before it was killed again.
    assert verdict["unsigned_entries"] == 1

    url = catalog.get("RESIGHT_DATABASE_URL", f"sqlite:///{data}/catalog.sqlite")
    engine = create_engine(url)
    with engine.begin() as connection:
        place = connection.execute(
            text("SELECT chain_id, sequence FROM audit_entries WHERE body LIKE :said"),
            {"said": f'%{answered[9]}"%'},
        ).one()
        connection.execute(
            text("UPDATE audit_entries SET body = replace(body, 'load ', 'lead ') "
                 "WHERE chain_id = :chain AND sequence = :sequence"),
            {"chain": bytes(place.chain_id), "sequence": place.sequence},
        )  # fmt: skip
    engine.dispose()
    code, verdict = command("verify", *trusted, environment=catalog)
    [fault] = verdict["faults"]
    assert (code, fault["chain_id"]) == (1, bytes(place.chain_id).hex())
    assert fault["sequence"] == place.sequence


def test_every_kind_of_call_is_recorded_with_what_it_was_about(
    start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    data = tmp_path / "data"
    with start_service(data, RESIGHT_AUDIT__RECORD_MATCHES="true") as service:
        with client_of(service) as client:
            one, other = filled(client, make_jpeg)
            query = make_jpeg(7)
            client.headers["resight-purpose"] = quote("Fahndung <script>")
            body = {"top_k": 1, "filter": {"include_camera_ids": ["c1"]}}
            found = client.post(f"{G}/search", json={"crop_id": one, **body})
            found.raise_for_status()
            client.post(f"{G}/search", files={"image": ("q.jpg", query)}, data={"query": "{}"})
            client.get(f"{G}/crops/{other}/image").raise_for_status()
            client.get(f"{G}/crops", params={"page_size": 1}).raise_for_status()
            client.delete(f"{G}/crops/{one}").raise_for_status()
            assert client.get(f"{G}/crops/{one}").status_code == 404
            client.get("/v1/audit").raise_for_status()
            vector = client.post(f"{G}/embed", files={"image": ("q.jpg", query)}).json()
            asked = {"embedding": {"values": vector["values"], "model_version": service.model}}
            made = client.post("/v1/keys", json={"display_name": "x", "scopes": ["search"]})
            made.raise_for_status()
            secret = made.json()["secret"]
            client.post(f"{G}/search", json=asked).raise_for_status()
        service.process.terminate()
        service.process.wait(120)
    said = bodies(data, {})
    assert said[0]["action"] == "audit/began"
    assert said[-1]["action"] == "audit/ended"
    [searched] = [each for each in said if each.get("notes", {}).get("query") == "crop"]
    assert searched["purpose"] == "Fahndung <script>"
    assert searched["outcome"] == "OK"
    assert searched["gallery"] == "default"
    assert searched["principal"] == "local"
    notes = searched["notes"]
    assert (notes["matches"], notes["top_k"], notes["cameras"]) == (1, 1, ["c1"])
    assert notes["match_ids"] == [match["crop"]["crop_id"] for match in found.json()["matches"]]
    assert notes["model_version"] == service.model
    viewed = [each for each in said if each["action"] == "GalleryService/GetCrop"]
    assert [(each["outcome"], each["notes"]["crop_id"]) for each in viewed] == [
        ("OK", other), ("NOT_FOUND", one),
    ]  # fmt: skip
    assert viewed[0]["notes"]["image"] is True
    deleted = [each for each in said if each["action"] == "GalleryService/DeleteCrop"]
    assert [each["event"] for each in deleted] == ["began", "ended"]
    assert deleted[1]["notes"]["crop_id"] == one
    actions = {each["action"] for each in said}
    assert {"GalleryService/ListCrops", "AdminService/ListAuditEntries"} <= actions
    assert not {action for action in actions if action == ""}
    [key] = [each for each in said if each["action"] == "AdminService/CreateApiKey"][1:]
    assert key["notes"]["key_id"] == made.json()["api_key"]["key_id"]
    # No key, no vector.
    text_of_all = json.dumps(said)
    assert secret.rpartition("_")[2] not in text_of_all
    assert not [
        value for value in vector["values"] if len(str(value)) > 8 and str(value)[:8] in text_of_all
    ]
    # No image of a query or a crop, in no form that a database may hold.
    stored = (data / "catalog.sqlite").read_bytes()
    for image in (query, make_jpeg(0), make_jpeg(1)):
        middle = image[len(image) // 2 :][:24]
        assert middle not in stored
        assert middle.hex().encode() not in stored


def test_a_search_without_its_purpose_is_refused_with_the_list(
    start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    purposes = json.dumps(["missing person", "theft"])
    with (
        start_service(
            tmp_path / "data",
            RESIGHT_GOVERNANCE__REQUIRE_PURPOSE="true",
            RESIGHT_GOVERNANCE__PURPOSES=purposes,
        ) as service,
        client_of(service) as client,
        grpc.insecure_channel(service.grpc) as channel,
    ):
        [crop] = filled(client, make_jpeg, 1)
        stub = search_service_pb2_grpc.SearchServiceStub(channel)
        query = search_service_pb2.SearchRequest(crop_id=crop)
        for purpose in (None, "curiosity"):
            headers = {} if purpose is None else {"resight-purpose": purpose}
            refused = client.post(f"{G}/search", json={"crop_id": crop}, headers=headers)
            assert refused.status_code == 400
            assert refused.json()["field"] == "resight-purpose"
            assert "'missing person', 'theft'" in refused.json()["detail"]
            with pytest.raises(grpc.RpcError, match="missing person") as caught:
                stub.Search(query, metadata=tuple(headers.items()))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert client.get(f"{G}/crops/{crop}", headers=headers).status_code == 400
            assert client.get(f"{G}/stats", headers=headers).status_code == 200
        declared = {"resight-purpose": "missing%20person"}
        assert client.post(f"{G}/search", json={"crop_id": crop}, headers=declared).is_success
        stub.Search(query, metadata=tuple(declared.items()))
        assert client.get(f"{G}/crops/{crop}", headers=declared).is_success
        schema = client.get("/v1/openapi.json").json()
        parameters = schema["paths"]["/v1/galleries/{gallery}/search"]["post"]["parameters"]
        assert "resight-purpose" in {parameter["name"] for parameter in parameters}


def test_a_purpose_that_cannot_be_read_is_a_denied_attempt(
    start_service: Any, tmp_path: Path
) -> None:
    with start_service(tmp_path / "data") as service, client_of(service) as client:
        for purpose in ("%ff", "x" * 300):
            answer = client.get(f"{G}/crops", headers={"resight-purpose": purpose})
            assert answer.status_code == 400
            assert answer.json()["field"] == "resight-purpose"
        listed = client.get("/v1/audit", params={"page_size": 100}).json()["entries"]
    refused = [json.loads(entry["body"]) for entry in listed]
    refused = [said for said in refused if said["action"] == "GalleryService/ListCrops"]
    assert [said["outcome"] for said in refused] == ["INVALID_ARGUMENT"] * 2
    assert all(said["refused"] for said in refused)


def test_whoever_is_not_let_in_is_summed_up_and_named(start_service: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with start_service(data, RESIGHT_ACCESS__AUTHENTICATION="on") as service:
        with client_of(service) as client:
            for _ in range(20):
                headers = {"authorization": "Bearer rsk_nobody_nothing"}
                assert client.get(f"{G}/stats", headers=headers).status_code in (401, 429)
        service.process.terminate()
        service.process.wait(120)
    denied = [each for each in bodies(data, {}) if each["action"] == "audit/denied"]
    unknown = [each for each in denied if each["outcome"] == "UNAUTHENTICATED"]
    assert len(unknown) <= 2
    assert sum(each["attempts"] for each in denied) == 20
    assert {each["peer"] for each in denied} == {"127.0.0.1"}
    assert "rsk_nobody" not in json.dumps(denied)


def filled_at_last(client: httpx.Client, make_jpeg: Callable[..., bytes]) -> str:
    """The one crop of a service whose short wait for its audit refuses what a busy machine delays,
    after it was started as well as in an outage.
    """
    deadline = time.monotonic() + 120
    while client.post(f"{G}/cameras", json={"camera_id": "c1"}).status_code == 503:
        assert time.monotonic() < deadline
    crop = {"camera_id": "c1", "capture_time": "2026-02-01T00:00:00+00:00"}
    files = {"image": ("crop.jpg", make_jpeg(0))}
    while (answer := client.post(f"{G}/crops", files=files, data=crop)).status_code == 503:
        assert time.monotonic() < deadline
    return str(answer.raise_for_status().json()["crop_id"])


def test_without_a_record_there_is_no_answer(
    start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    data = tmp_path / "data"
    with start_service(data, RESIGHT_AUDIT__WAIT_SECONDS="2") as service:
        with client_of(service) as client, grpc.insecure_channel(service.grpc) as channel:
            crop = filled_at_last(client, make_jpeg)
            stub = search_service_pb2_grpc.SearchServiceStub(channel)
            query = search_service_pb2.SearchRequest(crop_id=crop)
            with closing(sqlite3.connect(data / "catalog.sqlite")) as held:
                held.execute("BEGIN IMMEDIATE")
                answer = client.post(f"{G}/search", json={"crop_id": crop})
                assert (answer.status_code, answer.json()["reason"]) == (503, "AUDIT_UNAVAILABLE")
                assert "matches" not in answer.json()
                with pytest.raises(grpc.RpcError) as caught:
                    stub.Search(query)
                assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
                # A change does not begin.
                assert client.delete(f"{G}/crops/{crop}").status_code == 503
                metrics = client.get("/metrics").text
                [failures] = [
                    line for line in metrics.splitlines()
                    if line.startswith("resight_audit_write_failures_total")
                ]  # fmt: skip
                assert float(failures.split()[1]) >= 3
                held.rollback()
            refused, deadline = 2, time.monotonic() + 120
            while not client.post(f"{G}/search", json={"crop_id": crop}).is_success:
                refused += 1
                assert time.monotonic() < deadline
            assert client.get(f"{G}/crops/{crop}").is_success
            verdict = client.post("/v1/audit/verify").json()
            assert verdict["faults"] == []
        service.process.terminate()
        service.process.wait(120)
    outcomes = [
        each.get("outcome") for each in bodies(data, {})
        if each["action"] == "SearchService/Search"
    ]  # fmt: skip
    assert outcomes.count("UNAVAILABLE") == refused


def test_two_replicas_write_a_chain_each(
    start_service: Any, tmp_path: Path, postgresql_url: str, make_jpeg: Any
) -> None:
    environment = {
        "RESIGHT_DATABASE_URL": postgresql_url,
        "RESIGHT_BLOB_URL": f"file://{tmp_path}/b",
    }
    subprocess.run(
        [RESIGHT, "db", "upgrade"], env=os.environ | environment, check=True, timeout=240
    )
    with (
        start_service(tmp_path / "one", RESIGHT_REPLICAS__NAME="one", **environment) as first,
        start_service(tmp_path / "two", RESIGHT_REPLICAS__NAME="two", **environment) as second,
    ):
        with client_of(first) as client:
            [crop] = filled(client, make_jpeg, 1)
        for service, purpose in ((first, "at-one"), (second, "at-two")):
            with client_of(service) as client:
                deadline = time.monotonic() + 120
                headers = {"resight-purpose": purpose}
                while not client.get(f"{G}/crops/{crop}", headers=headers).is_success:
                    assert time.monotonic() < deadline
        code, verdict = command("verify", "--target", second.grpc)
        assert (code, verdict["chains"], verdict["faults"]) == (0, 2, [])
        assert len(verdict["signers"]) == 2
    said = bodies(tmp_path, environment)
    assert {each["replica"] for each in said if each["action"] == "audit/began"} == {"one", "two"}
    assert {"at-one", "at-two"} <= {each.get("purpose") for each in said}


def test_what_the_service_drops_by_itself_is_recorded(
    start_service: Any, tmp_path: Path, make_jpeg: Any
) -> None:
    data = tmp_path / "data"
    with start_service(data) as service:
        with client_of(service) as client:
            crops = filled(client, make_jpeg, 3)
            short = {"retention_days": 1}
            client.put(f"{G}/cameras/c1/retention", json=short).raise_for_status()
            deadline = time.monotonic() + 120
            while client.get(f"{G}/crops/{crops[0]}").is_success:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        service.process.terminate()
        service.process.wait(120)
    dropped = [each for each in bodies(data, {}) if each["action"] == "service/retention"]
    assert {(each["principal"], each["gallery"]) for each in dropped} == {("service", "default")}
    assert sum(each["notes"]["crops"] for each in dropped) == 3
