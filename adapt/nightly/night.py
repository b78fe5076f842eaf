"""One night: lease, crops, training, gate, candidate; or nothing.

Whatever ends the night, two things hold. A candidate is on the service only after it was verified
there, and its row is committed with the lease checked in the same transaction. And the run is
finished with a reason, or, when the process dies, its lease expires and the next night ends it;
the window of crops moves on with a success alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from adapt.nightly.budget import TimeBudget
from adapt.nightly.lease import Lease, State
from adapt.nightly.outcome import NightOutcome, Result
from adapt.nightly.pull import Pull
from adapt.nightly.quota import shares
from adapt.nightly.settings import NightSettings
from adapt.nightly.state import Memory, NightState
from resight.bundle import Bundle
from resight.client.connection import Connection, connect
from resight.client.faults import translated
from resight.console import note, progress
from resight.errors import FailedPrecondition, ResightError
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


@dataclass(frozen=True)
class _End:
    result: Result
    reason: str = ""
    message: str = ""


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
                night = _Night(settings, live, config, state, budget, connection, lease, outcome)
                night.run()
            if settings.report and outcome.verdict is not None:
                night.write_report()
    except ResightError as error:
        # Whatever the night itself met is in the outcome already; this came before or after it.
        if not outcome.reason:
            held = error.reason == "LEASE_HELD"
            _end(outcome, _End("held" if held else "failed", error.reason, error.message))
    finally:
        outcome.seconds["total"] = budget.elapsed
        _remember(state, memory, outcome)


class _Night:
    def __init__(
        self,
        settings: NightSettings,
        live: Bundle,
        config: RunConfig,
        state: NightState,
        budget: TimeBudget,
        connection: Connection,
        lease: Lease,
        outcome: NightOutcome,
    ) -> None:
        self._settings = settings
        self._live = live
        self._config = config
        self._state = state
        self._budget = budget
        self._connection = connection
        self._lease = lease
        self._outcome = outcome
        outcome.run_id = lease.run_id
        self._run = state.work / "run"
        self._pull = Pull(connection.adaptation, lease, state.work / "crops")

    def run(self) -> None:
        """The night from the lease on; the run is finished on the service before this returns."""
        try:
            end = self._steps()
            self._report_figures()
            self._finish(end)
        except ResightError as error:
            end = _End("failed", error.reason, error.message)
            self._finish_anyhow(end)
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt)
            what = "the process was told to end" if stopped else f"{type(error).__name__}: {error}"
            end = _End("failed", "INTERRUPTED" if stopped else "INTERNAL", what)
            self._finish_anyhow(end, patience=_HASTE_SECONDS)
            raise
        finally:
            _end(self._outcome, end)

    def _steps(self) -> _End:
        available = {name: crops.new for name, crops in self._lease.cameras.items()}
        total = sum(available.values())
        self._outcome.crops["available"] = total
        if total < self._settings.min_crops:
            return _End(
                "skipped",
                "TOO_FEW_CROPS",
                f"{total} new crops since the last success are fewer than"
                f" {self._settings.min_crops} (--min-crops); they are kept for the next night",
            )
        with self._timed("pull"):
            self._fetch(available)
        if self._budget.left <= 0:
            return _End(
                "failed",
                "TIME_BUDGET",
                f"after fetching {len(self._pull.crops)} crops no time is left to train; raise"
                " --time-budget, or lower --max-crops",
            )
        with self._timed("train"):
            self._learn()
        self._lease.require()
        return self._judge()

    def _fetch(self, available: dict[str, int]) -> None:
        settings, pull = self._settings, self._pull
        pull.folder.mkdir(mode=0o700)
        wanted = min(settings.max_crops or sum(available.values()), sum(available.values()))
        new = shares(available, wanted)
        older = {name: crops.older for name, crops in self._lease.cameras.items()}
        replay = shares(older, round(settings.replay * wanted))
        chosen = [(name, False, count) for name, count in new.items()]
        chosen += [(name, True, count) for name, count in replay.items()]
        size = wanted + sum(replay.values())
        with progress("fetch crops", size) as bar:

            def advance(count: int) -> None:
                bar.advance(count)
                self._lease.at("pull", len(pull.crops) / size)

            pull.advance = advance
            for name, is_replay, count in chosen:
                if count:
                    # The whole of a camera needs no sample: crops deleted meanwhile are not missed.
                    whole = not is_replay and count == available[name]
                    pull.camera(
                        name,
                        replay=is_replay,
                        sample=0 if whole else count,
                        seed=settings.seed,
                    )
        pull.write_manifest()
        self._outcome.crops |= pull.left_out
        self._outcome.stream_retries = pull.retries

    def _learn(self) -> None:
        from adapt.nightly.learning import learn, unused_paths

        epochs = max(1, self._config.epochs)
        done = 0

        def should_stop(seconds: float) -> bool:
            nonlocal done
            done += 1
            if self._lease.lost:
                return True
            self._lease.at("train", done / epochs, f"epoch {done} of {epochs}")
            return self._budget.spent_by(seconds)

        self._lease.at("train", 0.0, f"epoch 0 of {epochs}")
        made = learn(self._pull.manifest, self._run, self._config, should_stop=should_stop)
        self._outcome.summary = made.summary.payload()
        unused = unused_paths(made.directory.skipped)
        new = self._pull.ids(replay=False, without=unused)
        replay = self._pull.ids(replay=True, without=unused)
        self._outcome.crops |= {"new": len(new), "replay": len(replay), "unusable": len(unused)}
        self._lease.report(new_crop_ids=new, replay_crop_ids=replay)

    def _judge(self) -> _End:
        from adapt.nightly.admission import admit, question

        settings, outcome = self._settings, self._outcome
        baseline = settings.baseline or self._state.freeze(self._live)
        self._lease.at("gate")
        with self._timed("gate"):
            verdict = question(
                self._run / "bundle",
                live=settings.live,
                baseline=baseline,
                crops=self._pull.manifest,
            )
        outcome.verdict = verdict.payload()
        if not verdict.passed:
            return _End("refused", "GATE_REFUSED", "; ".join(verdict.reasons))
        self._lease.at("register")
        archive = self._state.work / "candidate.tar"
        with self._timed("register"):
            outcome.model_version = admit(
                self._run / "bundle", verdict, archive, self._lease, self._connection.models
            )
        self._state.keep_candidate(archive)
        return _End("succeeded", "", "; ".join(verdict.reasons))

    def _report_figures(self) -> None:
        self._lease.report(self._outcome.figures())

    def _finish(self, end: _End, patience: float | None = None) -> None:
        self._lease.finish(
            _STATES[end.result], reason=end.reason, message=end.message, patience=patience
        )

    def _finish_anyhow(self, end: _End, patience: float | None = None) -> None:
        """Tell the service as far as it can be told; what is not said, the lease's expiry says."""
        try:
            self._finish(end, patience)
        except ResightError as error:
            if error.reason != end.reason:
                self._outcome.notes.append(f"the run could not be finished: {error.message}")
                note(self._outcome.notes[-1])

    def write_report(self) -> None:
        """The page of the night; a night is not failed by its report."""
        from adapt.report.night import ReportSettings, write_report

        settings = ReportSettings(
            images=not self._settings.memory_only, seed=self._settings.seed, sample=2000
        )
        try:
            with self._timed("report"):
                write_report(
                    self._run,
                    live=self._settings.live,
                    crops=self._pull.manifest,
                    output=self._state.report,
                    settings=settings,
                    verdict=self._outcome.verdict,
                )
        except Exception as error:
            self._outcome.notes.append(f"no report: {type(error).__name__}: {error}")
            note(self._outcome.notes[-1])

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._outcome.seconds[phase] = time.perf_counter() - begun


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


def _end(outcome: NightOutcome, end: _End) -> None:
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
