"""What is in memory while streams bring more than is stored, and after they ended early."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from resight.client.connection import connect
from tests.e2e.ingest_streams import MEGABYTE, OUTCOME, add_camera, counted, item, stored

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
