"""Exemplars: in the format that has them, of calls alone, and what Prometheus makes of them."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as text_families

from service import call
from service.call import Call
from service.telemetry import REGISTRY, REQUEST_DURATION, exemplar, exposition, stage

PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


def exemplars(text: str) -> set[str]:
    return {
        sample.exemplar.labels["request_id"]
        for family in openmetrics_families(text)
        for sample in family.samples
        if sample.exemplar
    }


def test_a_stage_of_a_call_names_the_call() -> None:
    async def work() -> str:
        now = Call("rest", "SearchService/Search")
        call.begin(now)
        with stage("rerank", items=3):
            pass
        return now.request_id

    count = REGISTRY.get_sample_value("resight_stage_duration_seconds_count", {"stage": "rerank"})
    request_id = asyncio.run(work())
    text, kind = exposition(PROMETHEUS)
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    assert request_id in exemplars(text.decode())
    now = REGISTRY.get_sample_value("resight_stage_duration_seconds_count", {"stage": "rerank"})
    assert now == (count or 0) + 3


def test_the_service_s_own_work_names_nothing() -> None:
    assert exemplar() is None
    assert exemplar(call.OWN) is None


@pytest.mark.parametrize("accept", ["", "*/*", "text/plain;version=0.0.4", "text/html"])
def test_who_does_not_ask_gets_the_text_format_without_them(accept: str) -> None:
    text, kind = exposition(accept)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert " # {" not in text.decode()
    assert text.endswith(b"\n")
    assert not text.rstrip().endswith(b"# EOF")
    families = {family.name for family in text_families(text.decode())}
    assert "resight_requests" in families


def test_a_call_whose_trace_is_exported_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together within the 128 characters that an exemplar may have."""
    trace = "0af7651916cd43dd8448eb211c80319c"
    monkeypatch.setattr(
        "service.telemetry.exemplars.trace_id", lambda *, recorded: trace if recorded else ""
    )
    now = Call("grpc", "SearchService/Search")
    told = exemplar(now)
    assert told == {"request_id": now.request_id, "trace_id": trace}
    assert sum(len(name) + len(value) for name, value in told.items()) <= 128
    REQUEST_DURATION.labels("grpc", "SearchService/Search").observe(0.1, told)
    assert now.request_id in exemplars(exposition(PROMETHEUS)[0].decode())
