"""Spans of a real service as a real OTLP/HTTP collector gets them."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.connection import Connection, connect
from resight.v1 import gallery_service_pb2 as gallery
from resight.v1 import search_service_pb2 as search
from resight.v1.types_pb2 import Camera, Crop
from tests.e2e.collector import Collector, Span, collecting

START = 1_767_225_600
SEARCH = "resight.v1.SearchService/Search"
INGEST = "resight.v1.GalleryService/IngestCrops"
SERVER = 2
CROPS = 8


class Traced:
    """A service that is traced, with a few crops."""

    def __init__(self, service: Any, connection: Connection, collector: Collector) -> None:
        self.service = service
        self.connection = connection
        self.collector = collector

    def search(self, image: bytes, *, parent: str = "", **more: Any) -> Any:
        metadata = (("traceparent", parent),) if parent else ()
        return self.connection.search.Search(
            search.SearchRequest(image=image, **more), metadata=metadata, timeout=120
        )

    def metric(self, name: str, labels: str = "") -> float:
        text = httpx.get(f"http://{self.service.rest}/metrics").text
        found = re.search(rf"^{name}(?:_total)?{re.escape(labels)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0


def parent(*, sampled: bool = True) -> tuple[str, str, str]:
    """A traceparent, its trace and its span."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace}-{span}-{'01' if sampled else '00'}", trace, span


def items(make_jpeg: Callable[..., bytes], first: int, count: int) -> list[Any]:
    return [
        gallery.IngestCropsRequest(
            sequence=number,
            image=make_jpeg(number),
            crop=Crop(camera_id="door", capture_time=Timestamp(seconds=START + number)),
        )
        for number in range(first, first + count)
    ]


@pytest.fixture(scope="module")
def traced(
    start_service: Any, tmp_path_factory: pytest.TempPathFactory, make_jpeg: Callable[..., bytes]
) -> Iterator[Traced]:
    with (
        collecting() as collector,
        start_service(
            tmp_path_factory.mktemp("traced"), RESIGHT_TRACING__ENDPOINT=collector.url
        ) as service,
        connect(service.grpc) as connection,
    ):
        connection.gallery.CreateCamera(
            gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
        )
        answers = list(connection.gallery.IngestCrops(iter(items(make_jpeg, 0, CROPS))))
        assert len(answers) == CROPS
        yield Traced(service, connection, collector)


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_a_search_is_one_tree_below_the_callers_span(
    traced: Traced, make_jpeg: Callable[..., bytes]
) -> None:
    given, trace, above = parent()
    traced.search(make_jpeg(3), parent=given, top_k=3)
    spans = traced.collector.wait_for_call(trace, SEARCH)
    names = by_name(spans)
    call = names[SEARCH]
    assert (call.parent, call.kind) == (above, SERVER)
    assert call.attributes["rpc.system"] == "grpc"
    assert call.attributes["rpc.service"] == "resight.v1.SearchService"
    assert call.attributes["rpc.method"] == "Search"
    assert call.attributes["rpc.grpc.status_code"] == 0
    assert call.attributes["resight.gallery"] == "default"
    assert len(call.attributes["resight.request_id"]) == 32
    stages = {"decode", "queue", "embed", "filter", "search", "db", "audit"}
    assert names.keys() == stages | {SEARCH}
    for span in spans:
        if span is not call:
            assert span.parent == call.span
            assert call.start <= span.start <= span.end <= call.end, span.name
    order = [names[name] for name in ("decode", "queue", "embed", "filter", "search")]
    assert all(one.start <= other.start for one, other in pairwise(order))
    found = names["search"].attributes
    assert (found["resight.rows_scanned"], found["resight.rows_total"]) == (CROPS, CROPS)
    assert found["resight.mode"] == "exact_scan"
    assert not any(span.failed for span in spans)


def test_a_batch_is_linked_to_the_calls_that_it_serves(
    traced: Traced, make_jpeg: Callable[..., bytes]
) -> None:
    calls = [parent() for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda at: traced.search(make_jpeg(7), parent=at[0]), calls))
    batches: dict[tuple[str, str], Span] = {}
    linked = 0
    for _, trace, _ in calls:
        names = by_name(traced.collector.wait_for_call(trace, SEARCH))
        embed = names["embed"]
        ((batch_trace, batch_span),) = embed.links

        def come(at: Collector, wanted: tuple[str, str] = (batch_trace, batch_span)) -> bool:
            return any((span.trace, span.span) == wanted for span in at.spans)

        traced.collector.wait_for(come)
        (batch,) = [span for span in traced.collector.trace(batch_trace) if span.name == "batch"]
        assert batch.span == batch_span
        assert not batch.parent
        assert (trace, names[SEARCH].span) in batch.links
        assert (embed.start, embed.end) == (batch.start, batch.end)
        assert embed.attributes["resight.batch_size"] == batch.attributes["resight.batch_size"]
        batches[batch_trace, batch_span] = batch
        linked += 1
    assert sum(len(batch.links) for batch in batches.values()) == linked
    assert all(
        batch.attributes["resight.batch_size"] == len(batch.links) for batch in batches.values()
    )


def test_an_ingest_stream_has_a_span_for_every_item(
    traced: Traced, make_jpeg: Callable[..., bytes]
) -> None:
    given, trace, _ = parent()
    answers = traced.connection.gallery.IngestCrops(
        iter(items(make_jpeg, 100, 5)), metadata=(("traceparent", given),)
    )
    assert len(list(answers)) == 5
    spans = traced.collector.wait_for_call(trace, INGEST)
    call = by_name(spans)[INGEST]
    each = [span for span in spans if span.name == "ingest item"]
    assert len(each) == 5
    assert {span.parent for span in each} == {call.span}
    for item in each:
        below = {span.name for span in spans if span.parent == item.span}
        assert below == {"decode", "queue", "embed"}
    # What items do together is in spans of its own, linked to each.
    of = {span.span for span in each}

    def linked(at: Collector) -> set[str]:
        stores = [span for span in at.spans if span.name == "store crops"]
        return {span for store in stores for its, span in store.links if its == trace}

    # They end in their own time, not before the call.
    traced.collector.wait_for(lambda at: linked(at) >= of)
    assert linked(traced.collector) == of
    stored = [span for span in traced.collector.spans if span.name == "store crops"]
    writing = {span.name for one in stored for span in traced.collector.trace(one.trace)}
    assert writing == {"store crops", "blob", "db"}


def test_a_stream_that_its_caller_leaves_ends_its_span(
    traced: Traced, make_jpeg: Callable[..., bytes]
) -> None:
    given, trace, _ = parent()
    waiting = iter(items(make_jpeg, 200, 2))

    def requests() -> Iterator[Any]:
        yield next(waiting)
        time.sleep(30)

    stream = traced.connection.gallery.IngestCrops(requests(), metadata=(("traceparent", given),))
    next(stream)
    stream.cancel()
    spans = traced.collector.wait_for_call(trace, INGEST)
    call = by_name(spans)[INGEST]
    # gRPC tells a stream that its caller left as an end of what it reads, or as a cancellation.
    assert call.attributes["rpc.grpc.status_code"] in (0, grpc.StatusCode.CANCELLED.value[0])
    assert by_name(spans)["ingest item"].end <= call.end
    assert "Failed to detach" not in traced.service.log.read_text()
    given, trace, _ = parent()
    traced.search(make_jpeg(1), parent=given)
    assert len(by_name(traced.collector.wait_for_call(trace, SEARCH))) == 8


def test_a_long_stream_has_a_bounded_number_of_spans(
    traced: Traced, make_jpeg: Callable[..., bytes]
) -> None:
    from service.tracing.trace import MOST_SPANS

    given, trace, _ = parent()
    count = MOST_SPANS // 3
    answers = traced.connection.gallery.IngestCrops(
        iter(items(make_jpeg, 1000, count)), metadata=(("traceparent", given),)
    )
    assert len(list(answers)) == count
    spans = traced.collector.wait_for_call(trace, INGEST)
    assert len(spans) == MOST_SPANS + 1
    assert by_name(spans)[INGEST].attributes["resight.spans_left_out"] > 0


def test_a_rest_call_tells_its_trace(traced: Traced, make_jpeg: Callable[..., bytes]) -> None:
    given, trace, above = parent()
    base = f"http://{traced.service.rest}/v1/galleries/default"
    answer = httpx.post(
        f"{base}/search", files={"image": make_jpeg(4)}, headers={"traceparent": given}
    )
    name = "POST /v1/galleries/{gallery}/search"
    names = by_name(traced.collector.wait_for_call(trace, name))
    call = names[name]
    assert answer.headers["traceresponse"] == f"00-{trace}-{call.span}-01"
    assert call.parent == above
    assert call.attributes["http.request.method"] == "POST"
    assert call.attributes["http.route"] == "/v1/galleries/{gallery}/search"
    assert call.attributes["http.response.status_code"] == 200
    assert {"decode", "queue", "embed", "filter", "search", "db"} <= names.keys()
    missing, missed, _ = parent()
    assert httpx.get(f"{base}/crops/{'0' * 32}", headers={"traceparent": missing}).is_client_error
    # A caller's mistake is no failure of ours.
    (call,) = [
        span
        for span in traced.collector.wait_for_call(
            missed, "GET /v1/galleries/{gallery}/crops/{crop_id}"
        )
        if span.kind == SERVER
    ]
    assert not call.failed


def test_an_rpc_tells_its_trace_when_it_fails_too(
    traced: Traced, make_jpeg: Callable[..., bytes]
) -> None:
    given, trace, _ = parent()
    with pytest.raises(grpc.RpcError) as failure:
        traced.search(b"no image", parent=given)
    failed: Any = failure.value
    told = dict(failed.trailing_metadata())
    spans = traced.collector.wait_for_call(trace, SEARCH)
    call = by_name(spans)[SEARCH]
    assert told["traceresponse"] == f"00-{trace}-{call.span}-01"
    assert b"UNDECODABLE_IMAGE" in told["grpc-status-details-bin"]
    assert by_name(spans)["decode"].failed
    assert not call.failed


def test_the_callers_decision_is_kept(traced: Traced, make_jpeg: Callable[..., bytes]) -> None:
    no, unwanted, _ = parent(sampled=False)
    traced.search(make_jpeg(2), parent=no)
    given, trace, _ = parent()
    traced.search(make_jpeg(2), parent=given)
    traced.collector.wait_for_call(trace, SEARCH)
    assert not traced.collector.trace(unwanted)
    assert all(unwanted not in dict(span.links) for span in traced.collector.spans)


@pytest.mark.parametrize("broken", ["", "00-0-0-01", "x" * 4000, f"00-{'0' * 32}-{'0' * 16}-01"])
def test_a_broken_traceparent_begins_a_trace(
    traced: Traced, make_jpeg: Callable[..., bytes], broken: str
) -> None:
    before = len(traced.collector.spans)
    traced.search(make_jpeg(2), parent=broken)
    traced.collector.wait_for(
        lambda at: any(span.name == SEARCH and not span.parent for span in at.spans[before:])
    )


def test_the_resource_names_the_service(traced: Traced) -> None:
    told = traced.collector.resources[0]
    assert told["service.name"] == "resight"
    assert told["service.instance.id"]


def test_probes_are_no_calls(traced: Traced, make_jpeg: Callable[..., bytes]) -> None:
    for path in ("healthz", "readyz", "metrics"):
        assert httpx.get(f"http://{traced.service.rest}/{path}").status_code == 200
    given, trace, _ = parent()
    traced.search(make_jpeg(2), parent=given)
    traced.collector.wait_for_call(trace, SEARCH)
    assert not any(word in span.name for span in traced.collector.spans for word in ("z", "metr"))


def test_a_share_of_the_calls(
    start_service: Any, tmp_path: Any, make_jpeg: Callable[..., bytes]
) -> None:
    with (
        collecting() as collector,
        start_service(
            tmp_path,
            RESIGHT_TRACING__ENDPOINT=f"{collector.url}/v1/traces",
            RESIGHT_TRACING__SAMPLE_RATIO="0",
        ) as service,
        connect(service.grpc) as connection,
    ):
        traced = Traced(service, connection, collector)
        connection.gallery.CreateCamera(
            gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
        )
        for _ in range(5):
            traced.search(make_jpeg(2))
        given, trace, _ = parent()
        traced.search(make_jpeg(2), parent=given)
        spans = collector.wait_for_call(trace, SEARCH)
        assert {span.trace for span in spans} == {trace}
        assert {span.trace for span in collector.spans if span.kind == SERVER} == {trace}


def test_without_a_collector_calls_are_answered_and_losses_counted(
    start_service: Any, tmp_path: Any, make_jpeg: Callable[..., bytes]
) -> None:
    # Port 1 needs privileges that nobody here has given away.
    with (
        start_service(tmp_path, RESIGHT_TRACING__ENDPOINT="http://127.0.0.1:1") as service,
        connect(service.grpc) as connection,
    ):
        traced = Traced(service, connection, Collector())
        connection.gallery.CreateCamera(
            gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
        )
        until = time.monotonic() + 120
        while not traced.metric("resight_trace_spans", '{outcome="failed"}'):
            traced.search(make_jpeg(2))
            assert time.monotonic() < until
        assert traced.metric("resight_trace_spans", '{outcome="exported"}') == 0
        begun = time.monotonic()
        assert service.stop() == 0
        # What waits for a collector that is gone does not hold up the end.
        assert time.monotonic() - begun < 30
    lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert any(line["logger"].startswith("opentelemetry") for line in lines)


def test_off_nothing_is_exported(
    start_service: Any, tmp_path: Any, make_jpeg: Callable[..., bytes]
) -> None:
    with (
        collecting() as collector,
        start_service(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url) as service,
        connect(service.grpc) as connection,
    ):
        connection.gallery.CreateCamera(
            gallery.CreateCameraRequest(camera=Camera(camera_id="door"))
        )
        traced = Traced(service, connection, collector)
        given, _, _ = parent()
        traced.search(make_jpeg(2), parent=given)
        assert service.stop() == 0
    assert not collector.bodies
