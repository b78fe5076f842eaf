"""The uploader against a real gRPC server that answers by script."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from resight.client.connection import connect
from resight.client.ingest import Uploader
from resight.crops import CropRef
from resight.errors import InvalidArgument, Unavailable
from resight.v1 import gallery_service_pb2_grpc
from resight.v1.gallery_service_pb2 import IngestCropsRequest, IngestCropsResponse

Script = Callable[[Iterator[IngestCropsRequest], Any], Iterator[IngestCropsResponse]]
ACCEPTED = IngestCropsResponse.OUTCOME_ACCEPTED
RETRY = IngestCropsResponse.OUTCOME_RETRY
REJECTED = IngestCropsResponse.OUTCOME_REJECTED


class Scripted(gallery_service_pb2_grpc.GalleryServiceServicer):
    """Each stream is served by the next script; the last one serves all further streams."""

    def __init__(self, scripts: list[Script]) -> None:
        self.scripts = scripts
        self.streams = 0

    def IngestCrops(self, request_iterator: Any, context: Any) -> Any:  # noqa: N802
        script = self.scripts[min(self.streams, len(self.scripts) - 1)]
        self.streams += 1
        return script(request_iterator, context)


@pytest.fixture
def upload(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    servers = []

    def run(
        scripts: list[Script],
        count: int,
        window: int = 8,
        *,
        patience: float = 60.0,
        **options: Any,
    ) -> Any:
        server = grpc.server(ThreadPoolExecutor(4), **options)
        servicer = Scripted(scripts)
        gallery_service_pb2_grpc.add_GalleryServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        crops = []
        for number in range(count):
            path = tmp_path / f"{number}.jpg"
            path.write_bytes(b"image %d" % number)
            crops.append(CropRef(path, camera="c1", capture_time=datetime(2026, 1, 1, tzinfo=UTC)))
        with connect(f"127.0.0.1:{port}") as connection:
            uploader = Uploader(connection.gallery, gallery="", window=window, patience=patience)
            run.report = uploader.report  # type: ignore[attr-defined]
            return uploader.send(crops)

    yield run
    for server in servers:
        server.stop(None)


def accept_all(requests: Iterator[IngestCropsRequest], _: Any) -> Iterator[IngestCropsResponse]:
    for request in requests:
        assert request.image == b"image %d" % request.sequence
        yield IngestCropsResponse(sequence=request.sequence, outcome=ACCEPTED)


def test_everything_is_sent_once(upload: Any) -> None:
    report = upload([accept_all], 100)
    assert (report.accepted, report.retries, report.settled) == (100, 0, 100)


def test_the_window_bounds_what_is_in_flight(upload: Any) -> None:
    most = 0

    def late(requests: Any, _: Any) -> Iterator[IngestCropsResponse]:
        nonlocal most
        held: list[int] = []
        lock = threading.Condition()
        ended = False

        def collect() -> None:
            nonlocal ended
            for request in requests:
                with lock:
                    held.append(request.sequence)
                    lock.notify()
            with lock:
                ended = True
                lock.notify()

        threading.Thread(target=collect, daemon=True).start()
        while True:
            with lock:
                # Answer only when nothing more comes: the client must have filled its window.
                lock.wait_for(lambda: ended or len(held) >= 8, 60)
                while lock.wait(0.05):
                    pass
                most = max(most, len(held))
                if ended and not held:
                    return
                sequences, held[:] = list(held), []
            random.Random(0).shuffle(sequences)
            for sequence in sequences:
                yield IngestCropsResponse(sequence=sequence, outcome=ACCEPTED)

    assert upload([late], 40, window=8).accepted == 40
    assert most == 8


def test_an_item_to_be_retried_is_sent_again(upload: Any) -> None:
    seen: Counter[int] = Counter()

    def busy(requests: Any, _: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            seen[request.sequence] += 1
            outcome = (
                RETRY if request.sequence % 3 == 0 and seen[request.sequence] < 3 else ACCEPTED
            )
            yield IngestCropsResponse(sequence=request.sequence, outcome=outcome)

    report = upload([busy], 9)
    assert (report.accepted, report.retries) == (9, 6)
    assert seen[3] == 3


def test_a_service_that_never_takes_an_item_is_given_up(upload: Any) -> None:
    def full(requests: Any, _: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            taken = request.sequence == 0
            yield IngestCropsResponse(
                sequence=request.sequence,
                outcome=ACCEPTED if taken else RETRY,
                reason="" if taken else "QUEUE_FULL",
                message="" if taken else "the queue is full",
            )

    with pytest.raises(Unavailable, match="the queue is full"):
        upload([full], 3, patience=0.5)
    assert (upload.report.stored, upload.report.rejected.total()) == (1, 0)


def breaking_after(count: int, code: grpc.StatusCode, settled: list[int]) -> Script:
    def breaks(requests: Any, context: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            if len(settled) == count:
                context.abort(code, "broken")
            settled.append(request.sequence)
            yield IngestCropsResponse(sequence=request.sequence, outcome=ACCEPTED)

    return breaks


@pytest.mark.parametrize("code", ["UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL", "ABORTED"])
def test_a_broken_stream_is_continued_on_a_new_one(upload: Any, code: str) -> None:
    settled: list[int] = []
    second: list[int] = []

    def rest(requests: Any, context: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            second.append(request.sequence)
            yield from accept_all(iter([request]), context)

    report = upload([breaking_after(5, grpc.StatusCode[code], settled), rest], 30)
    assert report.accepted == 30
    assert sorted(settled + second) == list(range(30))  # nothing answered is sent again
    assert 1 <= report.retries <= 8  # what was in flight


def test_a_service_that_does_not_come_back_is_given_up(upload: Any) -> None:
    settled: list[int] = []
    with pytest.raises(Unavailable, match="broken"):
        upload([breaking_after(5, grpc.StatusCode.UNAVAILABLE, settled)], 30, patience=0.5)
    assert upload.report.stored == 5


def test_calls_beyond_the_services_bound_are_made_again(upload: Any, tmp_path: Path) -> None:
    release = threading.Event()
    waiting = threading.Event()

    def held(requests: Any, _: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            waiting.set()
            release.wait(120)
            yield IngestCropsResponse(sequence=request.sequence, outcome=ACCEPTED)

    server = grpc.server(ThreadPoolExecutor(4), maximum_concurrent_rpcs=1)
    gallery_service_pb2_grpc.add_GalleryServiceServicer_to_server(Scripted([held]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    path = tmp_path / "a.jpg"
    path.write_bytes(b"image")
    crop = CropRef(path, camera="c1", capture_time=datetime(2026, 1, 1, tzinfo=UTC))
    with connect(f"127.0.0.1:{port}") as connection, ThreadPoolExecutor(2) as callers:
        first = callers.submit(Uploader(connection.gallery, gallery="").send, [crop])
        assert waiting.wait(120)
        second = callers.submit(Uploader(connection.gallery, gallery="").send, [crop])
        release.set()
        assert first.result(120).accepted == second.result(120).accepted == 1
    server.stop(None)


def test_a_message_longer_than_the_service_takes_is_rejected_alone(
    upload: Any, tmp_path: Path
) -> None:
    limit = [("grpc.max_receive_message_length", 2000)]
    real = Path.write_bytes

    def longer(path: Path, data: bytes) -> int:
        return real(path, bytes(5000) if path.name == "7.jpg" else data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "write_bytes", longer)
        report = upload([accept_all], 20, options=limit)
    assert report.accepted == 19
    assert report.rejected == {"IMAGE_TOO_LARGE": 1}
    assert "7.jpg" in report.first_rejections[0]
    assert "grpc.max_message_bytes" in report.first_rejections[0]


def test_rejections_are_counted_by_reason_and_shown(upload: Any) -> None:
    def picky(requests: Any, _: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            yield IngestCropsResponse(
                sequence=request.sequence,
                outcome=REJECTED if request.sequence % 2 else ACCEPTED,
                reason="CAMERA_NOT_REGISTERED" if request.sequence % 2 else "",
                message="register it",
            )

    report = upload([picky], 20)
    assert (report.accepted, report.rejected) == (10, {"CAMERA_NOT_REGISTERED": 10})
    assert len(report.first_rejections) == 5
    assert "register it" in report.first_rejections[0]


def test_a_file_that_vanishes_is_rejected_and_the_rest_goes_on(upload: Any, tmp_path: Path) -> None:
    def deletes(requests: Any, _: Any) -> Iterator[IngestCropsResponse]:
        for request in requests:
            if request.sequence == 0:
                (tmp_path / "9.jpg").unlink()
            yield IngestCropsResponse(sequence=request.sequence, outcome=ACCEPTED)

    report = upload([deletes], 10, window=1)
    assert report.accepted == 9
    assert report.rejected == {"UNDECODABLE_IMAGE": 1}


def test_no_crops_are_no_stream(upload: Any) -> None:
    assert upload([accept_all], 0).settled == 0


def test_a_refusal_of_the_stream_is_raised(upload: Any) -> None:
    def refuses(requests: Any, context: Any) -> Iterator[IngestCropsResponse]:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no such thing")
        yield from ()

    with pytest.raises(InvalidArgument, match="no such thing"):
        upload([refuses], 3)


def test_no_service_is_said_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resight.client.connection._CONNECT_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="resight serve"), connect("127.0.0.1:1"):
        pass
