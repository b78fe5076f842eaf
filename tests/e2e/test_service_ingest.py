"""Streaming ingest under faults: who acknowledged what, and what is in memory meanwhile."""

from __future__ import annotations

import csv
import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import Connection, connect
from resight.v1 import gallery_service_pb2 as messages
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from resight.v1.types_pb2 import Camera, Crop
from tests.ports import free_port

RESIGHT = Path(sys.executable).with_name("resight")
OUTCOME = messages.IngestCropsResponse.Outcome
START = 1_767_225_600
MEGABYTE = 1024 * 1024


def item(number: int, image: bytes, *, crop_id: str = "") -> Any:
    return messages.IngestCropsRequest(
        sequence=number,
        image=image,
        crop=Crop(
            crop_id=crop_id, camera_id="door", capture_time=Timestamp(seconds=START + number)
        ),
    )


def add_camera(connection: Connection) -> None:
    connection.gallery.CreateCamera(messages.CreateCameraRequest(camera=Camera(camera_id="door")))


def stored(connection: Connection, *, at_rest: bool = True) -> int:
    stats = connection.gallery.GetGalleryStats(messages.GetGalleryStatsRequest())
    assert not at_rest or stats.searchable == stats.crops
    return int(stats.crops)


def counted(answers: Sequence[Any]) -> dict[str, int]:
    return dict(Counter(OUTCOME.Name(a.outcome).removeprefix("OUTCOME_") for a in answers))


@pytest.mark.parametrize("with_ids", [True, False])
def test_two_streams_of_the_same_crops_store_each_once(
    start_service: Any,
    catalog: dict[str, str],
    tmp_path: Path,
    make_jpeg: Callable[..., bytes],
    with_ids: bool,
) -> None:
    """Idempotent by content, with the client's ids or without."""
    images = {number: make_jpeg(number) for number in range(60)}
    items = [
        item(number, image, crop_id=str(UUID(int=number + 1)) if with_ids else "")
        for number, image in images.items()
    ]
    with start_service(tmp_path, **catalog) as service, connect(service.grpc) as connection:
        add_camera(connection)
        both = threading.Barrier(3)

        def send() -> dict[int, Any]:
            with connect(service.grpc) as own:
                both.wait()
                return {answer.sequence: answer for answer in own.gallery.IngestCrops(iter(items))}

        with ThreadPoolExecutor(3) as clients:
            found = [sent.result() for sent in [clients.submit(send) for _ in range(3)]]
        for number in images:
            answers = [answers[number] for answers in found]
            assert counted(answers) == {"ACCEPTED": 1, "DUPLICATE": 2}
            assert len({answer.crop_id for answer in answers}) == 1
            assert not with_ids or answers[0].crop_id == str(UUID(int=number + 1))
        assert stored(connection) == 60
        # The same id for something else is no duplicate, and harms neither.
        other = item(99, images[5], crop_id=found[0][7].crop_id)
        answer = next(iter(connection.gallery.IngestCrops(iter([other]))))
        assert (counted([answer]), answer.reason) == ({"REJECTED": 1}, "ID_CONFLICT")
        assert "crop_id" in answer.message
        assert stored(connection) == 60


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory, make_jpeg: Callable[..., bytes]) -> Path:
    return written(tmp_path_factory.mktemp("source"), [make_jpeg(n) for n in range(1500)])


def written(folder: Path, images: list[bytes]) -> Path:
    with (folder / "crops.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "camera", "capture_time"])
        for number, image in enumerate(images):
            (folder / f"{number}.jpg").write_bytes(image)
            minutes, seconds = divmod(number, 60)
            time_ = f"2026-04-01T{10 + minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}Z"
            writer.writerow([f"{number}.jpg", "door", time_])
    return folder / "crops.csv"


@contextmanager
def ingesting(manifest: Path, target: str, *options: str) -> Iterator[Any]:
    """``resight ingest`` in a process of its own."""
    command = [str(RESIGHT), "ingest", str(manifest), "--target", target, "--json", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_for(connection: Connection, crops: int, process: Any) -> None:
    until = time.monotonic() + 60
    while stored(connection, at_rest=False) < crops:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.01)


def offered(service: Any) -> int:
    """Crops that were offered for ingest since the start."""
    text = httpx.get(f"http://{service.rest}/metrics").text
    found = re.findall(r"^resight_ingested_total\{.*\} (\S+)$", text, re.MULTILINE)
    return int(sum(map(float, found)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_outlasts_a_restart_and_sends_only_what_is_left(
    start_service: Any, catalog: dict[str, str], tmp_path: Path, manifest: Path, how: int
) -> None:
    port = str(free_port())
    with (
        start_service(tmp_path, "--grpc-port", port, **catalog) as service,
        connect(service.grpc) as connection,
    ):
        add_camera(connection)
        with ingesting(manifest, service.grpc) as client:
            wait_for(connection, 200, client)
            service.stop(how)
            with start_service(tmp_path, "--grpc-port", port, **catalog) as again:
                before = again.crops
                assert 200 <= before < 1500, "too fast to be interrupted"
                out, err = client.communicate(timeout=120)
                assert client.returncode == 0, err
                # Beyond what was in flight nothing is sent that had been stored.
                assert offered(again) <= 1500 - before + 64
                with connect(again.grpc) as now:
                    assert stored(now) == 1500
    report = json.loads(out)
    assert report["accepted"] + report["duplicate"] == 1500
    assert report["rejected"] == 0
    assert report["duplicate"] <= 64
    assert report["retries"] >= 1


def test_the_command_is_interrupted_and_run_again(
    start_service: Any, tmp_path: Path, manifest: Path
) -> None:
    with start_service(tmp_path) as service, connect(service.grpc) as connection:
        add_camera(connection)
        for how, least in ((signal.SIGINT, 100), (signal.SIGTERM, 400)):
            with ingesting(manifest, service.grpc) as client:
                wait_for(connection, least, client)
                client.send_signal(how)
                _, err = client.communicate(timeout=120)
                assert client.returncode == 130, err
                told = re.findall(r"(\d+) of 1500 crops are stored", err)
                assert told, err
        there = steady(lambda: stored(connection, at_rest=False))
        assert int(told[0]) <= there < 1500, "too fast to be interrupted"
        with ingesting(manifest, service.grpc) as client:
            out, err = client.communicate(timeout=120)
            assert client.returncode == 0, err
        report = json.loads(out)
        assert report["duplicate"] == there
        assert report["accepted"] + report["duplicate"] == 1500 == stored(connection)


def test_a_service_that_stays_away_is_given_up(
    start_service: Any, tmp_path: Path, manifest: Path
) -> None:
    with start_service(tmp_path) as service, connect(service.grpc) as connection:
        add_camera(connection)
        with ingesting(manifest, service.grpc, "--patience", "1") as client:
            wait_for(connection, 50, client)
            service.stop(signal.SIGKILL)
            out, err = client.communicate(timeout=120)
    assert (client.returncode, out) == (1, "")
    assert "of 1500 crops are stored; run the same command again" in err
    assert "error: " in err


def test_one_crop_too_long_for_a_message_is_rejected_alone(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    images = [make_jpeg(number) for number in range(40)]
    images[20] += bytes(100_000)  # after the end of the image, where nobody looks
    manifest = written(tmp_path, images)
    limit = {"RESIGHT_GRPC__MAX_MESSAGE_BYTES": "65536"}
    with (
        start_service(tmp_path / "data", **limit) as service,
        connect(service.grpc) as connection,
        ingesting(manifest, service.grpc, "--register-cameras") as client,
    ):
        out, err = client.communicate(timeout=120)
        assert client.returncode == 0, err
        report = json.loads(out)
        assert report["accepted"] + report["duplicate"] == 39 == stored(connection)
        assert report["rejected_by_reason"] == {"IMAGE_TOO_LARGE": 1}
        assert "20.jpg" in err
        assert "grpc.max_message_bytes" in err


def test_a_message_beyond_the_limit_ends_its_stream_and_no_other(
    service: Any, make_jpeg: Callable[..., bytes]
) -> None:
    with (
        grpc.insecure_channel(
            service.grpc, options=[("grpc.max_send_message_length", -1)]
        ) as channel,
        connect(service.grpc) as other,
    ):
        add_camera(other)
        more = threading.Event()

        def slowly() -> Iterator[Any]:
            yield item(1_000, make_jpeg(1_000))
            more.wait(30)
            yield item(1_001, make_jpeg(1_001))

        going_on = other.gallery.IngestCrops(slowly())
        next(going_on)
        call = GalleryServiceStub(channel).IngestCrops(iter([item(1, bytes(25 * MEGABYTE))]))
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in caught.value.details()
        more.set()
        assert counted(list(going_on)) == {"ACCEPTED": 1}


def test_a_stream_without_items_ends_well(service: Any) -> None:
    with connect(service.grpc) as connection:
        call = connection.gallery.IngestCrops(iter([]))
        assert list(call) == []
        assert call.code() is grpc.StatusCode.OK


def test_answers_come_after_the_half_close_and_numbers_are_the_clients(
    service: Any, make_jpeg: Callable[..., bytes]
) -> None:
    numbers = [2**63 - 1, 0, -(2**63), 7]
    requests = []
    for place, number in enumerate(numbers):
        request = item(2_000 + place, make_jpeg(2_000 + place))
        request.sequence = number
        requests.append(request)
    with connect(service.grpc) as connection:
        add_camera(connection)
        call = connection.gallery.IngestCrops(iter(requests))
        time.sleep(0.2)  # everything is sent and half-closed before the first answer is read
        answers = list(call)
    assert counted(answers) == {"ACCEPTED": 4}
    assert sorted(answer.sequence for answer in answers) == sorted(numbers)


BOUND = 4  # MiB of images that may wait
STREAMS = 3
SMALL = {
    "RESIGHT_BATCHER__MAX_QUEUE_BYTES": str(BOUND * MEGABYTE * 4 // 3),
    "RESIGHT_BATCHER__MAX_QUEUE": "32",
}


def memory(service: Any) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024


@contextmanager
def held_catalog(data: Path) -> Iterator[None]:
    """Nobody can commit for the length of the block: a very slow disk."""
    database = sqlite3.connect(data / "catalog.sqlite", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        database.execute("ROLLBACK")
        database.close()


def steady(value: Callable[[], int]) -> int:
    """The value once it has not changed for a second."""
    last, since = value(), time.monotonic()
    until = time.monotonic() + 120
    while time.monotonic() - since < 1.0:
        assert time.monotonic() < until
        time.sleep(0.05)
        if (now := value()) != last:
            last, since = now, time.monotonic()
    return last


def test_clients_that_send_without_reading_are_held_back_by_a_slow_service(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    """300 images of 1 MiB are offered; only what may wait is taken, and then all are stored."""
    padding = bytes(MEGABYTE)
    sent = Counter[int]()
    with start_service(tmp_path, **SMALL) as service, connect(service.grpc) as connection:
        add_camera(connection)
        list(connection.gallery.IngestCrops(iter([item(0, make_jpeg(0) + padding)])))
        before = memory(service)

        def offering(stream: int) -> Iterator[Any]:
            for number in range(100):
                sent[stream] += 1
                yield item(1 + 100 * stream + number, make_jpeg(number) + padding)

        with (
            connect(service.grpc) as one,
            connect(service.grpc) as two,
            connect(service.grpc) as three,
        ):
            with held_catalog(tmp_path):
                calls = [
                    client.gallery.IngestCrops(offering(stream))
                    for stream, client in enumerate((one, two, three))
                ]
                taken = steady(sent.total)
                # In work together, and of each stream one message read, one on the wire, and what
                # HTTP/2's windows hold.
                assert taken <= BOUND + STREAMS * 16
                grown = memory(service) - before
                assert grown < 100 * MEGABYTE
            answers = [answer for call in calls for answer in call]
        assert len(answers) == 300
        accepted = counted(answers)["ACCEPTED"]
        retry = [a for a in answers if a.outcome == OUTCOME.Value("OUTCOME_RETRY")]
        assert accepted + len(retry) == 300
        assert {answer.reason for answer in retry} <= {"CATALOG_UNAVAILABLE", "QUEUE_FULL"}
        assert accepted > 200
        assert stored(connection) == accepted + 1
        assert memory(service) - before < 150 * MEGABYTE


@pytest.mark.parametrize("end", ["deadline", "cancel"])
def test_a_stream_that_ends_early_gives_its_room_back(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes], end: str
) -> None:
    """More such streams than there is room for; whoever comes next is served."""
    images = [make_jpeg(number) for number in range(64)]

    def endless() -> Iterator[Any]:
        for number in range(64):
            yield item(number, images[number])
        threading.Event().wait(20)

    with start_service(tmp_path, **SMALL) as service, connect(service.grpc) as connection:
        add_camera(connection)
        codes = Counter[grpc.StatusCode]()
        with held_catalog(tmp_path):
            for _ in range(4):
                timeout = 0.5 if end == "deadline" else None
                call = connection.gallery.IngestCrops(endless(), timeout=timeout)
                if end == "cancel":
                    time.sleep(0.3)
                    call.cancel()  # type: ignore[no-untyped-call]
                with pytest.raises(grpc.RpcError) as caught:
                    list(call)
                codes[caught.value.code()] += 1
        expected = {"deadline": "DEADLINE_EXCEEDED", "cancel": "CANCELLED"}[end]
        assert codes == {grpc.StatusCode[expected]: 4}
        answers: dict[int, Any] = {}
        until = time.monotonic() + 120
        while len(answers) < 64:  # some may be told to come again
            assert time.monotonic() < until
            rest = [item(n, images[n]) for n in range(64) if n not in answers]
            for answer in connection.gallery.IngestCrops(iter(rest)):
                if answer.outcome != OUTCOME.Value("OUTCOME_RETRY"):
                    answers[answer.sequence] = answer
        assert set(counted(list(answers.values()))) <= {"ACCEPTED", "DUPLICATE"}
        assert stored(connection) == 64
