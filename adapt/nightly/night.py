"""One night: lease, crops, training, gate, candidate; or nothing.

Whatever ends the night, two things hold. A candidate is on the service only after it was verified
there, and its row is committed with the lease checked in the same transaction. And the run is
finished with a reason, or, when the process dies, its lease expires and the next night ends it;
the window of crops moves on with a success alone.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adapt.nightly.budget import TimeBudget
from adapt.nightly.lease import Lease, State
from adapt.nightly.outcome import NightOutcome, Result
from adapt.nightly.settings import NightSettings
from adapt.nightly.state import Memory, NightState
from adapt.nightly.steps import End, Steps
from resight.bundle import Bundle
from resight.client.connection import Connection, connect
from resight.client.faults import translated
from resight.console import note
from resight.errors import FailedPrecondition, InvalidArgument, ResightError
from resight.v1.gallery_service_pb2 import GetGalleryStatsRequest

if TYPE_CHECKING:
    from adapt.training.config import RunConfig

__all__ = ["run_night"]

_HASTE_SECONDS = 3.0
_STATES: dict[Result, State.ValueType] = {
    "succeeded": State.STATE_SUCCEEDED,
    "refused": State.STATE_REFUSED,
    "skipped": State.STATE_SKIPPED,
    "failed": State.STATE_FAILED,
}


def run_night(
    settings: NightSettings,
    live: Bundle,
    config: RunConfig,
    state: NightState,
    outcome: NightOutcome,
) -> None:
    """Runs a night inside an opened ``state``; errors of the tree end in the outcome.

    Args:
        settings: What the night is told.
        live: The bundle at ``settings.live``, verified.
        config: Of the training, from ``night_config``.
        state: Opened by the caller.
        outcome: Filled as the night goes, whatever ends it.

    Raises:
        KeyboardInterrupt: The process was told to end; the run is finished as failed.
    """
    outcome.live_version = live.model_version
    memory = state.memory()
    budget = TimeBudget(settings.time_budget, reserve=memory.tail_seconds)
    try:
        with connect(settings.target) as connection:
            _require_live(connection, settings, live)
            with Lease.taken(
                connection.adaptation, settings.gallery, seconds=settings.lease_seconds
            ) as lease:
                outcome.run_id = lease.run_id
                steps = Steps(settings, live, config, state, budget, connection, lease, outcome)
                _run(steps, lease, outcome)
            if settings.report and outcome.verdict is not None:
                steps.write_report()
    except ResightError as error:
        # Whatever the night itself met is in the outcome already; this came before or after it.
        if not outcome.reason:
            held = error.reason == "LEASE_HELD"
            _end(outcome, End("held" if held else "failed", error.reason, error.message))
    finally:
        outcome.seconds["total"] = budget.elapsed
        _remember(state, memory, outcome)


def _run(steps: Steps, lease: Lease, outcome: NightOutcome) -> None:
    """The night from the lease on; the run is finished on the service before this returns."""
    try:
        end = steps.take()
        _report(lease, outcome)
        _finish(lease, end)
    except ResightError as error:
        end = End("failed", error.reason, error.message)
        _finish_anyhow(lease, end, outcome)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        what = "the process was told to end" if stopped else f"{type(error).__name__}: {error}"
        end = End("failed", "INTERRUPTED" if stopped else "INTERNAL", what)
        _finish_anyhow(lease, end, outcome, patience=_HASTE_SECONDS)
        raise
    finally:
        _end(outcome, end)


def _report(lease: Lease, outcome: NightOutcome) -> None:
    """Figures are no reason to lose a candidate: what is too much for the record is left out."""
    try:
        lease.report(outcome.figures())
    except InvalidArgument as error:
        outcome.notes.append(f"the record holds counts and times alone: {error.message}")
        note(outcome.notes[-1])
        lease.report({"crops": outcome.crops, "seconds": outcome.seconds})


def _finish(lease: Lease, end: End, patience: float | None = None) -> None:
    state = _STATES[end.result]
    lease.finish(state, reason=end.reason, message=end.message, patience=patience)


def _finish_anyhow(
    lease: Lease, end: End, outcome: NightOutcome, patience: float | None = None
) -> None:
    """Tell the service as far as it can be told; what is not said, the lease's expiry says."""
    try:
        _finish(lease, end, patience)
    except ResightError as error:
        if error.reason != end.reason:
            outcome.notes.append(f"the run could not be finished: {error.message}")
            note(outcome.notes[-1])


def _require_live(connection: Connection, settings: NightSettings, live: Bundle) -> None:
    request = GetGalleryStatsRequest(gallery=settings.gallery)
    with translated():
        serving = connection.gallery.GetGalleryStats(request).model_version
    if serving != live.model_version:
        raise FailedPrecondition(
            f"--live {settings.live} is encoder {live.model_version}, but gallery"
            f" {settings.gallery!r} is served by {serving}: name the bundle that it serves",
            field="live",
            reason="NOT_THE_LIVE_ENCODER",
        )


def _end(outcome: NightOutcome, end: End) -> None:
    outcome.result, outcome.reason, outcome.message = end.result, end.reason, end.message
    outcome.ended = time.time()


def _remember(state: NightState, memory: Memory, outcome: NightOutcome) -> None:
    tail = _tail(outcome)
    state.remember(
        replace(
            memory,
            last_success=outcome.ended if outcome.result == "succeeded" else memory.last_success,
            tail_seconds=memory.tail_seconds if tail is None else tail,
            last=outcome.payload(),
        )
    )


def _tail(outcome: NightOutcome) -> float | None:
    """Seconds of all that follows training; None when the night did not come so far."""
    if "register" not in outcome.seconds:
        return None
    summary: dict[str, Any] = outcome.summary or {}
    export = float(summary.get("seconds", {}).get("export", 0.0))
    return export + outcome.seconds["gate"] + outcome.seconds["register"]
