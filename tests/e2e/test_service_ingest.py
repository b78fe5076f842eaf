"""Streams of crops: who acknowledged what, and what ends a stream."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest

from resight.client.connection import connect
from resight.v1.gallery_service_pb2_grpc import GalleryServiceStub
from tests.e2e.ingest_streams import MEGABYTE, add_camera, counted, item, stored


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
            more.wait(120)
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
