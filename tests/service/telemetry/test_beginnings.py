"""Counters of a gallery before anything is counted."""

from __future__ import annotations

import subprocess
import sys

from service.domain.adaptation import RunState
from service.telemetry import gallery_begins
from service.telemetry.registry import REGISTRY


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_a_first_bulk_load_and_a_first_night_are_increases() -> None:
    name = "of-the-beginnings"
    assert value("resight_crops_stored_total", gallery=name) is None
    gallery_begins(name)
    gallery_begins(name)
    assert value("resight_crops_stored_total", gallery=name) == 0
    assert value("resight_retention_dropped_total", gallery=name) == 0
    for state in set(RunState) - {RunState.RUNNING}:
        assert value("resight_adaptation_runs_total", gallery=name, outcome=state.value) == 0
    for use in ("new", "replay"):
        assert value("resight_adaptation_crops_used_total", gallery=name, use=use) == 0


def test_what_a_night_misses_at_once_is_an_increase() -> None:
    for outcome in ("sent", "image_missing", "image_damaged"):
        assert value("resight_adaptation_crops_streamed_total", outcome=outcome) is not None


def test_an_audit_that_nobody_has_failed_to_write_can_be_written() -> None:
    """Of a fresh process, as a long start shows it: at 0 an alert would wake somebody."""
    program = (
        "from service.telemetry import REGISTRY;"
        "print(REGISTRY.get_sample_value('resight_audit_writable'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True
    )
    assert float(done.stdout) == 1
