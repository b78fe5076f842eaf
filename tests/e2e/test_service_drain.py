"""SIGTERM under load: nothing in flight is lost, health says no first, and the exit code is 0."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_health.v1 import health_pb2, health_pb2_grpc

from resight.client.connection import connect
from resight.v1 import gallery_service_pb2, search_service_pb2
from resight.v1.gallery_service_pb2 import IngestCropsResponse
from resight.v1.types_pb2 import Camera, Crop


def test_sigterm_under_load(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    data = tmp_path / "data"
    # Long enough to be asked in on a busy machine.
    with start_service(data, "--drain-delay", "15") as service:
        with connect(service.grpc) as connection:
            connection.gallery.CreateCamera(
                gallery_service_pb2.CreateCameraRequest(camera=Camera(camera_id="door"))
            )
            searches: Counter[str] = Counter()
            stop = threading.Event()
            callers = [
                threading.Thread(
                    target=keep_searching, args=(connection, make_jpeg(n), stop, searches)
                )
                for n in range(4)
            ]
            for caller in callers:
                caller.start()
            answers = [next(call := connection.gallery.IngestCrops(endless(make_jpeg)))]
            while len(answers) < 20:
                answers.append(next(call))
            service.process.send_signal(signal.SIGTERM)
            assert_not_ready(service, connection)
            try:
                answers.extend(call)
                ended = grpc.StatusCode.OK
            except grpc.RpcError as error:
                ended = error.code()
            stop.set()
            for caller in callers:
                caller.join()
        assert service.process.wait(120) == 0
    assert ended is grpc.StatusCode.UNAVAILABLE
    accepted = [a for a in answers if a.outcome == IngestCropsResponse.OUTCOME_ACCEPTED]
    others = {a.reason for a in answers if a.outcome != IngestCropsResponse.OUTCOME_ACCEPTED}
    assert len(accepted) >= 20
    assert others <= {"DRAINING"}
    assert searches["OK"] > 0
    assert set(searches) <= {"OK", "UNAVAILABLE"}

    with start_service(data) as service, connect(service.grpc) as connection:
        for answer in accepted:
            connection.gallery.GetCrop(gallery_service_pb2.GetCropRequest(crop_id=answer.crop_id))
        assert service.crops >= len(accepted)
        assert service.stop(signal.SIGINT) == 0


def test_calls_are_answered_while_load_balancers_notice(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    """Also when what is in flight afterwards has no time to finish."""
    delay = {"RESIGHT_DRAIN_DELAY_SECONDS": "600", "RESIGHT_DRAIN_SECONDS": "0"}
    with start_service(tmp_path / "data", **delay) as service, connect(service.grpc) as before:
        service.process.send_signal(signal.SIGTERM)
        assert_not_ready(service, before)
        with connect(service.grpc) as after:  # a new connection, from one who has not noticed
            for connection in (before, after):
                query = search_service_pb2.SearchRequest(image=make_jpeg(1))
                assert connection.search.Search(query).rows_total == 0
        assert service.process.poll() is None


def test_a_second_signal_ends_at_once(start_service: Any, tmp_path: Path) -> None:
    with start_service(tmp_path / "data", "--drain-delay", "600") as service:
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"http://{service.rest}/readyz").status_code == 503)
        assert service.stop(signal.SIGTERM) == 128 + signal.SIGTERM, "it waits not for the delay"


def assert_not_ready(service: Any, connection: Any) -> None:
    """Within the delay the service still answers, and says that it is going."""
    wait_until(lambda: httpx.get(f"http://{service.rest}/readyz").status_code == 503)
    assert httpx.get(f"http://{service.rest}/healthz").status_code == 200
    health = health_pb2_grpc.HealthStub(connection.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="resight.v1.SearchService"))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


def wait_until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def keep_searching(
    connection: Any, image: bytes, stop: threading.Event, seen: Counter[str]
) -> None:
    while not stop.is_set():
        try:
            connection.search.Search(search_service_pb2.SearchRequest(image=image))
            seen["OK"] += 1
        except grpc.RpcError as error:
            seen[error.code().name] += 1
            return


def endless(make_jpeg: Callable[..., bytes]) -> Iterator[Any]:
    for number in range(1_000_000):
        # So that what is looked at in the end is not too much.
        time.sleep(0.01)
        yield gallery_service_pb2.IngestCropsRequest(
            sequence=number,
            image=make_jpeg(number % 50),
            crop=Crop(camera_id="door", capture_time=Timestamp(seconds=1_767_225_600 + number)),
        )
