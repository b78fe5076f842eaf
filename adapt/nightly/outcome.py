"""What became of a night."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from adapt.nightly.metrics import Metric
from adapt.nightly.state import Memory

__all__ = ["NightOutcome", "Result", "metrics_of", "plain"]

Result = Literal["succeeded", "refused", "skipped", "failed", "held"]
RESULTS: tuple[Result, ...] = ("succeeded", "refused", "skipped", "failed", "held")
_EXIT: dict[Result, int] = {"succeeded": 0, "skipped": 0, "refused": 3, "failed": 1, "held": 1}


@dataclass
class NightOutcome:
    """A night's figures, filled as it goes.

    Attributes:
        gallery: Whose encoder was adapted.
        result: How it ended; ``held`` when another night had the lease.
        reason: Stable code in UPPER_SNAKE_CASE, empty for a success.
        message: The same for people.
        ended: When the run was finished, seconds since 1970.
        run_id: Run on the service; empty when none was started.
        model_version: The registered candidate; empty when there is none.
        live_version: The encoder it started from.
        crops: Counts: available, new, replay, and left out by reason.
        stream_retries: How often a stream of crops broke and was taken up again.
        seconds: Wall time by phase.
        summary: Of the run, as JSON values; None before the training ended.
        verdict: Of the gate, as JSON values; None before it spoke.
        notes: What went wrong without ending the night.
    """

    gallery: str
    result: Result = "failed"
    reason: str = ""
    message: str = ""
    ended: float | None = None
    run_id: str = ""
    model_version: str = ""
    live_version: str = ""
    crops: dict[str, int] = field(default_factory=dict)
    stream_retries: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 done or nothing to do, 1 failed or another night runs, 3 refused by the gate."""
        return _EXIT[self.result]

    def figures(self) -> dict[str, Any]:
        """What is reported to the service: JSON values, none of them not finite."""
        told = {
            "live_version": self.live_version,
            "crops": self.crops,
            "stream_retries": self.stream_retries,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "summary": self.summary,
            "gate": self.verdict,
            "notes": self.notes,
        }
        checked = plain(told)
        assert isinstance(checked, dict)  # noqa: S101 -- a mapping stays one
        return checked

    def payload(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return {
            "result": self.result,
            "reason": self.reason,
            "message": self.message,
            "gallery": self.gallery,
            "run_id": self.run_id,
            "model_version": self.model_version,
            **self.figures(),
        }


def plain(value: Any) -> Any:
    """The value with None for every number that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def metrics_of(outcome: NightOutcome, memory: Memory, *, now: float) -> list[Metric]:
    """The metrics of docs/nightly.md; what a night did not reach is absent."""
    prefix = "resight_night_"
    found = [
        Metric(prefix + "last_run_timestamp_seconds", "When the last night ended.", (({}, now),)),
        Metric(
            prefix + "result",
            "1 for the result of the last night, 0 for the others.",
            tuple(({"result": name}, float(name == outcome.result)) for name in RESULTS),
        ),
        Metric(
            prefix + "duration_seconds",
            "Wall time of the last night by phase.",
            tuple(({"phase": name}, value) for name, value in outcome.seconds.items()),
        ),
        Metric(
            prefix + "crops",
            "Crops of the last night: in its window, used (new, replay), held out for the gate,"
            " left out by reason.",
            tuple(({"kind": name}, float(count)) for name, count in outcome.crops.items()),
        ),
    ]
    if memory.last_success is not None:
        text = "When a night last registered a candidate."
        name = prefix + "last_success_timestamp_seconds"
        found.append(Metric(name, text, (({}, memory.last_success),)))
    found += [
        Metric(prefix + name, text, (({}, float(value)),))
        for name, text, value in (
            ("epochs", "Epochs of the last night.", _epochs(outcome)),
            ("clusters", "Clusters of its last epoch.", _last(outcome, "clusters")),
            ("outliers", "Crops in no cluster in its last epoch.", _last(outcome, "outliers")),
            ("loss", "Mean loss of its last epoch.", _last(outcome, "loss")),
            ("gate_score", "Of the candidate against the live encoder.", _gate(outcome, "score")),
            (
                "gate_baseline_score",
                "Of the candidate against the frozen baseline.",
                _gate(outcome, "baseline_score"),
            ),
        )
        if value is not None
    ]
    return found


def _epochs(outcome: NightOutcome) -> float | None:
    return None if outcome.summary is None else float(len(outcome.summary["epochs"]))


def _last(outcome: NightOutcome, name: str) -> float | None:
    epochs = (outcome.summary or {}).get("epochs") or [{}]
    value = epochs[-1].get(name)
    return None if value is None else float(value)


def _gate(outcome: NightOutcome, name: str) -> float | None:
    value = (outcome.verdict or {}).get(name)
    return None if value is None else float(value)
