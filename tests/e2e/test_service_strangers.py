"""Strangers, who have no key, hold no place that others need."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from resight.v1.gallery_service_pb2 import GetGalleryStatsRequest
from tests.e2e.replica_site import eventually
from tests.e2e.test_service_keys import ON, connected, first_key

PLACES = 16
MANY = 4 * PLACES
BOUND = {"RESIGHT_GRPC__MAX_CONCURRENT_RPCS": str(PLACES), **ON}


def never(finish: threading.Event) -> Iterator[bytes]:
    """A message that does not come."""
    finish.wait(60)
    yield b""


def promising(channel: grpc.Channel, method: str) -> Any:
    """Calls a method as a client that decides for itself when it sends the message."""
    made: Any = channel
    return made.stream_unary(f"/{method}")


@pytest.mark.parametrize("how", ["search", "check", "watch", "long"])
def test_strangers_take_no_places(start_service: Any, tmp_path: Path, how: str) -> None:
    data = tmp_path / "data"
    admin = first_key(data)
    finish = threading.Event()
    with (
        start_service(data, **BOUND) as service,
        grpc.insecure_channel(service.grpc) as channel,
        connected(service.grpc, admin) as connection,
    ):
        held: list[Any] = []
        for _ in range(MANY):
            if how == "watch":
                watch = health_pb2_grpc.HealthStub(channel).Watch
                held.append(watch(health_pb2.HealthCheckRequest()))
            elif how == "long":
                watch = health_pb2_grpc.HealthStub(channel).Watch
                held.append(watch(health_pb2.HealthCheckRequest(service="x" * 1_000_000)))
            else:
                name = "grpc.health.v1.Health/Check"
                name = "resight.v1.SearchService/Search" if how == "search" else name
                # A client that promises one message and sends none.
                held.append(promising(channel, name).future(never(finish)))
        try:
            # How many of them are ended; those of "check" end after seconds.
            ended = {"search": MANY, "long": MANY, "watch": MANY - PLACES // 4}.get(how, 0)
            eventually(lambda: sum(not call.is_active() for call in held) >= ended)
            connection.gallery.GetGalleryStats(GetGalleryStatsRequest())
            if how == "search":
                assert grpc.StatusCode.UNAUTHENTICATED in {call.code() for call in held}
            if how == "long":
                assert grpc.StatusCode.INVALID_ARGUMENT in {call.code() for call in held}
            if how == "watch":
                refused = [call for call in held if not call.is_active()]
                assert len(refused) == ended
                assert {call.code() for call in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
            if how != "check":  # whose places are free again after seconds
                check = health_pb2_grpc.HealthStub(channel).Check
                assert check(health_pb2.HealthCheckRequest()).status == 1
        finally:
            finish.set()
            for call in held:
                call.cancel()


def test_a_call_without_its_message_is_told(start_service: Any, tmp_path: Path) -> None:
    data = tmp_path / "data"
    admin = first_key(data)
    shown = (("authorization", f"Bearer {admin}"),)
    with start_service(data, **ON) as service, grpc.insecure_channel(service.grpc) as channel:
        method = promising(channel, "resight.v1.SearchService/Search")
        with pytest.raises(grpc.RpcError) as failed:
            method(iter(()), metadata=shown, timeout=60)
        error: Any = failed.value
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "without its message" in error.details()
