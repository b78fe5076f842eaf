"""A disk that is full, and one that cannot be written."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from resight.client.connection import Connection, connect
from resight.client.error_info import reason_of
from resight.v1 import gallery_service_pb2, search_service_pb2
from resight.v1.admin_service_pb2 import ListAuditEntriesRequest, VerifyAuditRequest
from tests.e2e.conftest import RESIGHT
from tests.faults.conftest import image_of
from tests.faults.evidence import Site, crop_id_of
from tests.faults.load import Load, Numbers, request_of
from tests.faults.small_disk import small_disk

Outcome = gallery_service_pb2.IngestCropsResponse


def ingest(site: Site, connection: Connection, numbers: range) -> list[Any]:
    """Send crops and note what is acknowledged."""
    site.told.sent.update(numbers)
    answers = list(
        connection.gallery.IngestCrops(iter([request_of(site, number) for number in numbers]))
    )
    site.told.stored.update(
        answer.sequence
        for answer in answers
        if answer.outcome in (Outcome.OUTCOME_ACCEPTED, Outcome.OUTCOME_DUPLICATE)
    )
    return answers


def delete(site: Site, connection: Connection, numbers: Iterable[int]) -> None:
    """Delete crops and note what is acknowledged."""
    for number in numbers:
        request = gallery_service_pb2.DeleteCropRequest(crop_id=crop_id_of(number))
        connection.gallery.DeleteCrop(request)
        site.told.deleted.add(number)


def search(site: Site, connection: Connection, number: int) -> str:
    answer = connection.search.Search(
        search_service_pb2.SearchRequest(image=site.image_of(number), top_k=1)
    )
    return str(answer.matches[0].crop.crop_id)


def test_a_full_disk_costs_no_acknowledged_crop_and_ends_when_there_is_room(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        data = disk.path / "data"
        site = Site(data, f"sqlite:///{data}/catalog.sqlite", image_of)
        # The whole index is written soon, so that its files meet the full disk, too.
        # Nothing is recorded on it, so that what needs no room goes on.
        settings = {"RESIGHT_INDEX__CHANGES_PER_WRITE": "16", "RESIGHT_AUDIT__ENABLED": "false"}
        with start_service(data, **settings) as service, connect(service.grpc) as connection:
            Load(site, connection, Numbers(), 0).register_cameras()
            ingest(site, connection, range(1, 60))
            assert len(site.told.stored) == 59
            disk.fill()
            answers = ingest(site, connection, range(60, 90))
            outcomes = {answer.outcome for answer in answers}
            assert outcomes <= {Outcome.OUTCOME_RETRY, Outcome.OUTCOME_ACCEPTED}
            refused = [item for item in answers if item.outcome == Outcome.OUTCOME_RETRY]
            assert refused, "the disk was not full"
            assert {item.reason for item in refused} <= {"BLOBS_UNAVAILABLE", "CATALOG_UNAVAILABLE"}
            assert all("again" in item.message or "moment" in item.message for item in refused)
            # What is there is served meanwhile.
            assert search(site, connection, 7) == crop_id_of(7)
            site.told.deleting.update((1, 2, 3))
            with pytest.raises(grpc.RpcError) as caught:
                delete(site, connection, (1, 2, 3))
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            disk.empty()
            again = ingest(site, connection, range(60, 90))
            assert all(
                item.outcome in (Outcome.OUTCOME_ACCEPTED, Outcome.OUTCOME_DUPLICATE)
                for item in again
            )
            site.check(connection)
        with start_service(data, **settings) as service, connect(service.grpc) as connection:
            site.check(connection)
            assert len(site.told.lasting) >= 86


def test_a_full_disk_that_holds_the_audit_stops_what_cannot_be_recorded_until_there_is_room(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        data = disk.path / "data"
        site = Site(data, f"sqlite:///{data}/catalog.sqlite", image_of)
        with start_service(data) as service, connect(service.grpc) as connection:
            Load(site, connection, Numbers(), 0).register_cameras()
            ingest(site, connection, range(1, 40))
            assert len(site.told.stored) == 39
            disk.fill()
            refused: list[grpc.RpcError] = []
            answered = 0
            # What is left of allocated pages takes a few entries more.
            for _ in range(2000):
                try:
                    assert search(site, connection, 7) == crop_id_of(7)
                    answered += 1
                except grpc.RpcError as error:
                    refused.append(error)
                    break
            assert refused, "the disk was not full"
            assert refused[0].code() is grpc.StatusCode.UNAVAILABLE
            assert reason_of(refused[0]) == "AUDIT_UNAVAILABLE"
            with pytest.raises(grpc.RpcError) as caught:
                ingest(site, connection, range(40, 50))
            assert reason_of(caught.value) == "AUDIT_UNAVAILABLE"
            # Whoever balances load learns of it, and that it is over, though nobody calls any more.
            eventually(lambda: shown(service, connection) == ("unrecorded", "NOT_SERVING", 0, 0))
            disk.empty()
            eventually(lambda: shown(service, connection) == ("ready", "SERVING", 1, 1))
            assert search(site, connection, 7) == crop_id_of(7)
            again = ingest(site, connection, range(40, 50))
            assert {item.outcome for item in again} == {Outcome.OUTCOME_ACCEPTED}
            site.check(connection)
        with start_service(data) as service, connect(service.grpc) as connection:
            site.check(connection)
            report = connection.admin.VerifyAudit(VerifyAuditRequest())
            assert not report.faults
            searches = [
                entry
                for entry in connection.admin.ListAuditEntries(
                    ListAuditEntriesRequest(page_size=1000)
                ).entries
                if entry.action == "SearchService/Search" and entry.outcome == "OK"
            ]
            # The one after there was room, and those that the test's own check asked.
            assert len(searches) > answered


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for it: two minutes at most."""
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def shown(service: Any, connection: Connection) -> tuple[str, str, float, float]:
    """``/readyz``, gRPC health, and the gauges of readiness and of the audit."""
    state = httpx.get(f"http://{service.rest}/readyz", timeout=120)
    assert (state.status_code == 200) == (state.json()["status"] == "ready")
    stub = health_pb2_grpc.HealthStub(connection.channel)
    health = stub.Check(health_pb2.HealthCheckRequest(), timeout=120).status
    text = httpx.get(f"http://{service.rest}/metrics", timeout=120).text
    gauges = dict(re.findall(r"^(resight_ready|resight_audit_writable) (\S+)$", text, re.MULTILINE))
    return (
        state.json()["status"],
        health_pb2.HealthCheckResponse.ServingStatus.Name(health),
        float(gauges["resight_ready"]),
        float(gauges["resight_audit_writable"]),
    )


def test_a_blob_store_that_turns_read_only_is_survived(
    start_service: Callable[..., Any], tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        data = tmp_path / "data"
        site = Site(data, f"sqlite:///{data}/catalog.sqlite", image_of, blobs=disk.path)
        settings = {"RESIGHT_BLOB_URL": f"file://{disk.path}"}
        with start_service(data, **settings) as service, connect(service.grpc) as connection:
            Load(site, connection, Numbers(), 0).register_cameras()
            ingest(site, connection, range(1, 20))
            disk.remount("ro")
            answers = ingest(site, connection, range(20, 24))
            assert {item.reason for item in answers} == {"BLOBS_UNAVAILABLE"}
            assert {item.outcome for item in answers} == {Outcome.OUTCOME_RETRY}
            assert search(site, connection, 7) == crop_id_of(7)
            site.told.deleting.add(3)
            with pytest.raises(grpc.RpcError) as caught:
                connection.gallery.DeleteCrop(
                    gallery_service_pb2.DeleteCropRequest(crop_id=crop_id_of(3))
                )
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "deleted, but its image" in str(caught.value.details())
            assert search(site, connection, 3) != crop_id_of(3)
            disk.remount("rw")
            again = ingest(site, connection, range(20, 24))
            assert {item.outcome for item in again} == {Outcome.OUTCOME_ACCEPTED}
            site.check(connection)
        images = {path.name for path in disk.path.rglob("*") if path.is_file()}
        with start_service(data, **settings) as service, connect(service.grpc) as connection:
            site.check(connection)
        left = {path.name for path in disk.path.rglob("*") if path.is_file()}
        assert len(images - left) == 1, "the image of the deleted crop goes with the next start"


def test_a_read_only_data_directory_is_told_at_the_start(
    start_service: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", megabytes=24) as disk:
        data = disk.path / "data"
        with start_service(data):
            pass
        disk.remount("ro")
        refused = subprocess.run(
            [str(RESIGHT), "serve", "--bundle", str(tiny_bundle), "--data", str(data),
             "--grpc-port", "0", "--rest-port", "0"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert refused.returncode == 1, refused
        line = refused.stderr.strip().splitlines()[-1]
        assert "data_dir" in line
        assert "cannot be written" in line
        disk.remount("rw")
        with start_service(data) as service:
            assert service.crops == 0
