"""What the metrics say of nights, also of those that another process served."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resight.errors import InvalidArgument
from service.application.run_key import RunKey
from service.application.run_watch import RunFigures, RunWatch, run_figures
from service.domain.adaptation import Ending, RunState
from service.settings import load_settings
from service.telemetry import REGISTRY

NIGHT = {
    "crops": {"new": 300, "replay": 100, "available": 500},
    "summary": {"epochs": [{"clusters": 9, "outliers": 200}, {"clusters": 31, "outliers": 80}]},
    "gate": {"passed": False, "score": -0.25, "baseline_score": 0.5},
}


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"resight_adaptation_{name}", {"gallery": "default", **labels})


def test_the_figures_of_a_night() -> None:
    assert run_figures(NIGHT) == RunFigures(
        passed=False, gate_score=-0.25, baseline_score=0.5, clusters=31.0, outlier_share=0.2
    )


@pytest.mark.parametrize(
    "told",
    [
        None,
        {},
        {"gate": None, "summary": None, "crops": None},
        {"gate": "passed", "summary": [1], "crops": 7},
        {"gate": {"passed": 1, "score": "0.5"}, "summary": {"epochs": []}},
        {"summary": {"epochs": [3]}, "crops": {"new": 0}},
        {"summary": {"epochs": [{"outliers": 5}]}, "crops": {"new": True}},
    ],
)
def test_anything_else_that_a_caller_reports_is_no_figure(told: Any) -> None:
    assert run_figures(told) == RunFigures()


def test_galleries_that_nights_are_expected_of_are_told_from_the_start() -> None:
    settings = load_settings({"nightly": {"expected": ["yard", "hall"]}})
    nothing: Any = None
    RunWatch(nothing, nothing, expected=settings.nightly.expected)
    for name, told in (("yard", 1), ("hall", 1), ("roof", None)):
        assert REGISTRY.get_sample_value("resight_adaptation_expected", {"gallery": name}) == told


def test_what_is_no_gallery_is_not_expected_to_have_nights() -> None:
    with pytest.raises(InvalidArgument, match=r"nightly\.expected"):
        load_settings({"nightly": {"expected": ["no such/name"]}})


def test_runs_are_told_from_the_catalog(opened: Any, run: Any, clock: Any) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            adaptation, watch = application.adaptation, application.watching.runs
            await watch.look()
            assert gauge("last_attempt_timestamp_seconds") is None
            started = await adaptation.start("", "night")
            begun = clock.now().timestamp()
            await watch.look()
            assert gauge("last_attempt_timestamp_seconds") == begun
            assert gauge("last_outcome", outcome="refused") is None
            key = RunKey("", str(started.run.run_id), started.lease_token)
            await adaptation.report(key, figures=NIGHT)
            clock.pass_seconds(90)
            await adaptation.finish(key, Ending(RunState.REFUSED, "GATE_REFUSED", "worse"))
            # As a replica does that served none of these calls.
            await type(watch)(application._catalog, application._galleries).look()
            assert gauge("last_outcome", outcome="refused") == 1
            assert gauge("last_outcome", outcome="succeeded") == 0
            assert gauge("duration_seconds") == 90
            assert gauge("gate_result", verdict="refused") == 1
            assert gauge("gate_result", verdict="passed") == 0
            assert gauge("gate_score") == -0.25
            assert gauge("outlier_share") == 0.2
            # A night that did not get as far as the gate leaves what it said last.
            second = await adaptation.start("", "night")
            key = RunKey("", str(second.run.run_id), second.lease_token)
            await adaptation.finish(key, Ending(RunState.FAILED, "INTERNAL", "no"))
            await watch.look()
            assert gauge("last_outcome", outcome="failed") == 1
            assert gauge("last_outcome", outcome="refused") == 0
            assert gauge("gate_result", verdict="refused") == 1
            assert gauge("last_success_timestamp_seconds") is None
            await asyncio.sleep(0)

    run(work())


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    """The registry is the process's: what other tests told is forgotten."""
    for metric in list(REGISTRY._collector_to_names):
        if any(
            name.startswith("resight_adaptation") for name in REGISTRY._collector_to_names[metric]
        ) and hasattr(metric, "clear"):
            metric.clear()
