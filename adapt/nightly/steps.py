"""The steps of a night, each on the folder that the one before has filled."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from adapt.nightly.budget import TimeBudget
from adapt.nightly.erased import drop_erased, drop_stale_report
from adapt.nightly.held_out import Split, hold_out
from adapt.nightly.lease import Lease
from adapt.nightly.outcome import NightOutcome, Result
from adapt.nightly.pull import Pull
from adapt.nightly.quota import quota
from adapt.nightly.settings import NightSettings
from adapt.nightly.state import NightState
from resight.bundle import Bundle
from resight.client.connection import Connection
from resight.console import note, progress
from resight.crops import open_source
from resight.errors import ResightError

if TYPE_CHECKING:
    from adapt.training.config import RunConfig

__all__ = ["End", "Steps"]


@dataclass(frozen=True)
class End:
    """How a night ended, and why."""

    result: Result
    reason: str = ""
    message: str = ""


class Steps:
    """Fetch, train, judge, register; figures go to ``outcome`` as they come."""

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
        self._run = state.work / "run"
        self._unusable: frozenset[Path] = frozenset()
        self._split = Split((), (), "")
        self._pull = Pull(connection.adaptation, lease, state.work / "crops")

    def take(self) -> End:
        """All of them, or as many as are to be taken.

        Raises:
            ResightError: One failed.
        """
        self._forget_report()
        available = {name: crops.new for name, crops in self._lease.cameras.items()}
        total = sum(available.values())
        self._outcome.crops["available"] = total
        if total < self._settings.min_crops:
            return End(
                "skipped",
                "TOO_FEW_CROPS",
                f"{total} new crops since the last success are fewer than"
                f" {self._settings.min_crops} (--min-crops); they are kept for the next night",
            )
        with self._timed("pull"):
            self._fetch(available)
        if self._budget.left <= 0:
            return End(
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
        older = {name: crops.older for name, crops in self._lease.cameras.items()}
        wanted = quota(available, older, most=settings.max_crops, replay=settings.replay)
        chosen = [(name, False, count) for name, count in wanted.new.items()]
        chosen += [(name, True, count) for name, count in wanted.replay.items()]
        size = sum(count for _, _, count in chosen)
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
        self._drop_erased()
        split = self._split = hold_out(
            pull.crops, share=settings.gate.held_out, least=settings.gate.least
        )
        self._write_manifests()
        self._outcome.crops |= pull.left_out
        self._outcome.crops["held_out"] = len(split.judged)
        self._outcome.stream_retries = pull.retries

    def _learn(self) -> None:
        from adapt.nightly.learning import learn, unused_paths

        epochs = max(1, self._config.epochs + self._first_stage())
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
        unusable = self._unusable = unused_paths(made.directory.skipped)
        used = [crop for crop in self._split.trained if crop.path not in unusable]
        new = [crop.crop_id for crop in used if not crop.replay]
        replay = [crop.crop_id for crop in used if crop.replay]
        self._outcome.crops |= {"new": len(new), "replay": len(replay), "unusable": len(unusable)}
        self._lease.report(new_crop_ids=new, replay_crop_ids=replay)

    def _drop_erased(self) -> None:
        """Let go of what was erased since it was fetched."""
        gone = drop_erased(self._pull, self._lease, cache=self._run / "cache")
        if gone:
            self._outcome.crops["erased"] = self._outcome.crops.get("erased", 0) + gone
            there = {crop.crop_id for crop in self._pull.crops}
            self._split = replace(
                self._split,
                trained=tuple(crop for crop in self._split.trained if crop.crop_id in there),
                judged=tuple(crop for crop in self._split.judged if crop.crop_id in there),
            )
            note(f"{gone} crops were erased since they were fetched; they are dropped here, too")

    def _write_manifests(self) -> None:
        self._pull.write_manifest(self._pull.manifest, self._split.trained)
        self._pull.write_manifest(self._pull.held_out, self._split.judged)

    def _forget_report(self) -> None:
        if gone := drop_stale_report(self._state, self._lease):
            self._outcome.notes.append(
                f"the last report was removed: {gone} of its crops were erased since"
            )
            note(self._outcome.notes[-1])

    def _first_stage(self) -> int:
        """Epochs that CALR spends on each camera before the others."""
        config = self._config
        if config.method != "calr" or not config.calr.refine:
            return 0
        return config.calr.intra_epochs * len({crop.row[1] for crop in self._split.trained})

    def _judge(self) -> End:
        from adapt.nightly.admission import admit, question

        settings, outcome = self._settings, self._outcome
        # The training may have taken hours.
        self._drop_erased()
        self._write_manifests()
        baseline = settings.baseline or self._state.freeze(self._live)
        self._lease.at("gate")
        with self._timed("gate"):
            verdict = question(
                self._run / "bundle",
                live=settings.live,
                baseline=baseline,
                crops=self._pull.held_out if self._split.judged else self._pull.manifest,
                settings=settings.gate,
                note=self._split.note,
            )
        outcome.verdict = verdict.payload()
        if not verdict.passed:
            return End("refused", "GATE_REFUSED", "; ".join(verdict.reasons))
        if settings.vector_map:
            self._attach_vector_map()
        self._lease.at("register")
        archive = self._state.work / "candidate.tar"
        with self._timed("register"):
            outcome.model_version = admit(
                self._run / "bundle", verdict, archive, self._lease, self._connection.models
            )
        self._state.keep_candidate(archive)
        return End("succeeded", "", "; ".join(verdict.reasons))

    def _attach_vector_map(self) -> None:
        """Old vectors for the candidate, where they rank as new ones would; else without."""
        from adapt.export.old_gallery import attach_vector_map

        crops = open_source(self._pull.manifest).scan().crops
        usable = [crop for crop in crops if crop.path not in self._unusable]
        try:
            with self._timed("map"):
                attach_vector_map(
                    self._run / "bundle", self._settings.live, usable, seed=self._settings.seed
                )
        except ResightError as error:
            self._outcome.notes.append(f"no vector map: {error.message}")
            note(self._outcome.notes[-1])

    def write_report(self) -> None:
        """The page of the night; a night is not failed by its report."""
        from adapt.report.night import ReportSettings, write_report

        settings = ReportSettings(
            images=not self._settings.memory_only, seed=self._settings.seed, sample=2000
        )
        shown = [] if self._settings.memory_only else self._split.trained
        try:
            with self._timed("report"):
                self._state.will_report(crop.crop_id for crop in shown)
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
