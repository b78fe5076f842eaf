"""Whose fault it is that a deadline ended a call: real services, quick and stuck, and counters."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx

from resight.client.connection import Connection, connect
from resight.v1.search_service_pb2 import SearchRequest
from tests.e2e.test_ingest_pressure import held_catalog

WAIT = 120
ROUTE = "POST /v1/galleries/{gallery}/search"
OURS = {"INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS", "DEADLINE_EXCEEDED"}


def codes(service: Any, method: str) -> Counter[str]:
    """What the calls of a method were counted with so far."""
    text = httpx.get(f"http://{service.rest}/metrics", timeout=WAIT).text
    made = Counter[str]()
    for labels, value in re.findall(r"^resight_requests_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if told["method"] == method:
            made[told["code"]] += int(float(value))
    return made


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def ended(connection: Connection, image: bytes, timeout: float) -> None:
    with suppress(grpc.RpcError):
        connection.search.Search(SearchRequest(image=image), timeout=timeout)


def test_deadlines_shorter_than_the_objective_are_no_fault_of_ours(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    image, method = make_jpeg(1), "SearchService/Search"
    with start_service(tmp_path) as service, connect(service.grpc) as connection:
        connection.search.Search(SearchRequest(image=image), timeout=WAIT)
        end = time.monotonic() + WAIT
        while codes(service, method)["CALLER_DEADLINE"] < 20:
            assert time.monotonic() < end, codes(service, method)
            for timeout in (0.002, 0.01, 0.05):  # the first may be over before it is sent
                ended(connection, image, timeout)
        assert OURS.isdisjoint(codes(service, method))
        url = f"http://{service.rest}/v1/galleries/default/search"
        for _ in range(5):
            answer = httpx.post(
                url,
                files={"image": ("a.jpg", image, "image/jpeg")},
                headers={"Resight-Timeout": "0.0001"},
                timeout=WAIT,
            )
            assert answer.status_code == 504
        until(lambda: codes(service, ROUTE).total() == 5)
        assert codes(service, ROUTE) == {"CALLER_DEADLINE": 5}


def test_a_service_that_leaves_time_enough_unused_is_at_fault(
    start_service: Any, tmp_path: Path, make_jpeg: Callable[..., bytes]
) -> None:
    """No search may be answered before it is recorded, and the catalog takes nothing."""
    image, method = make_jpeg(1), "SearchService/Search"
    with start_service(tmp_path) as service, connect(service.grpc) as connection:
        connection.search.Search(SearchRequest(image=image), timeout=WAIT)
        with held_catalog(tmp_path):
            for _ in range(3):
                ended(connection, image, 3.0)
        until(lambda: codes(service, method).total() == 4)
        assert codes(service, method) == {"OK": 1, "DEADLINE_EXCEEDED": 3}


def test_a_message_that_never_comes_is_its_callers_fault(
    start_service: Any, tmp_path: Path
) -> None:
    method = "SearchService/Search"
    with start_service(tmp_path) as service, grpc.insecure_channel(service.grpc) as channel:
        opened = channel.stream_unary(f"/resight.v1.{method}", bytes, bytes)
        for _ in range(3):
            with suppress(grpc.RpcError):
                opened(_never(), timeout=1.0)
        until(lambda: codes(service, method).total() == 3)
        assert OURS.isdisjoint(codes(service, method))


def _never() -> Any:
    time.sleep(3)
    yield from ()
