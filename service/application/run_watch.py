"""What the metrics show of nights: read from the catalog, so that every replica says the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any

from sqlalchemy import Connection

from service.application.galleries import Galleries
from service.catalog import run_reads
from service.catalog.store import Catalog
from service.domain.adaptation import AdaptationRun, RunState
from service.telemetry import (
    ADAPTATION_CLUSTERS,
    ADAPTATION_DURATION,
    ADAPTATION_EXPECTED,
    ADAPTATION_GATE_BASELINE_SCORE,
    ADAPTATION_GATE_RESULT,
    ADAPTATION_GATE_SCORE,
    ADAPTATION_LAST_ATTEMPT,
    ADAPTATION_LAST_OUTCOME,
    ADAPTATION_LAST_SUCCESS,
    ADAPTATION_OUTLIER_SHARE,
)

__all__ = ["RunFigures", "RunWatch", "run_figures"]

_ENDED = [state.value for state in RunState if state is not RunState.RUNNING]


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a night reported, as far as it is what it should be; None for the rest."""

    passed: bool | None = None
    gate_score: float | None = None
    baseline_score: float | None = None
    clusters: float | None = None
    outlier_share: float | None = None


def run_figures(figures: Mapping[str, Any] | None) -> RunFigures:
    """The figures of ``resight adapt nightly`` out of what a caller reported: anything at all."""
    told = figures if isinstance(figures, Mapping) else {}
    gate = told.get("gate")
    gate = gate if isinstance(gate, Mapping) else {}
    passed = gate.get("passed")
    summary = told.get("summary")
    epochs = summary.get("epochs") if isinstance(summary, Mapping) else None
    last = epochs[-1] if isinstance(epochs, list) and epochs else {}
    last = last if isinstance(last, Mapping) else {}
    crops = told.get("crops")
    crops = crops if isinstance(crops, Mapping) else {}
    used = (_number(crops, "new") or 0.0) + (_number(crops, "replay") or 0.0)
    outliers = _number(last, "outliers")
    return RunFigures(
        passed=passed if isinstance(passed, bool) else None,
        gate_score=_number(gate, "score"),
        baseline_score=_number(gate, "baseline_score"),
        clusters=_number(last, "clusters"),
        outlier_share=outliers / used if outliers is not None and used > 0 else None,
    )


@dataclass(frozen=True, slots=True)
class _Seen:
    attempt: datetime | None
    success: datetime | None
    ended: AdaptationRun | None
    reported: RunFigures


class RunWatch:
    """``look`` reads, and tells the metrics.

    Args:
        catalog: Where runs are read.
        galleries: Whose runs are told.
        expected: Galleries that have nights, whether one has begun or not.
    """

    def __init__(
        self, catalog: Catalog, galleries: Galleries, *, expected: Sequence[str] = ()
    ) -> None:
        for name in expected:
            ADAPTATION_EXPECTED.labels(name).set(1)
        self._catalog = catalog
        self._galleries = galleries
        # The run whose figures are known, as they are long and never change once it has ended.
        self._figures: dict[int, tuple[int, RunFigures]] = {}

    async def look(self) -> None:
        """Read the runs of every gallery.

        Raises:
            Unavailable: the catalog does not answer.
        """
        rows = {gallery.row: gallery.name for gallery in self._galleries.all()}
        for row, seen in (await self._catalog.read(self._seen, list(rows))).items():
            _tell(rows[row], seen)

    def _seen(self, connection: Connection, rows: list[int]) -> dict[int, _Seen]:
        attempts = run_reads.last_attempt(connection)
        successes = run_reads.last_success(connection)
        found = {}
        for row in rows:
            if row not in attempts:
                continue
            ended = run_reads.last_ended(connection, row)
            found[row] = _Seen(
                attempts[row],
                successes.get(row),
                None if ended is None else ended.run,
                self._reported(connection, row, ended),
            )
        return found

    def _reported(
        self, connection: Connection, row: int, ended: run_reads.RunRecord | None
    ) -> RunFigures:
        if ended is None:
            return RunFigures()
        known = self._figures.get(row)
        if known is None or known[0] != ended.run_row:
            record = run_reads.last_ended(connection, row, with_figures=True)
            figures = run_figures(None if record is None else record.run.figures)
            known = self._figures[row] = (ended.run_row, figures)
        return known[1]


def _tell(gallery: str, seen: _Seen) -> None:
    if seen.attempt is not None:
        ADAPTATION_LAST_ATTEMPT.labels(gallery).set(seen.attempt.timestamp())
    if seen.success is not None:
        ADAPTATION_LAST_SUCCESS.labels(gallery).set(seen.success.timestamp())
    ended = seen.ended
    if ended is not None:
        for outcome in _ENDED:
            ADAPTATION_LAST_OUTCOME.labels(gallery, outcome).set(outcome == ended.state.value)
        if ended.end_time is not None:
            seconds = (ended.end_time - ended.start_time).total_seconds()
            ADAPTATION_DURATION.labels(gallery).set(seconds)
    told = seen.reported
    if told.passed is not None:
        ADAPTATION_GATE_RESULT.labels(gallery, "passed").set(told.passed)
        ADAPTATION_GATE_RESULT.labels(gallery, "refused").set(not told.passed)
    for gauge, value in (
        (ADAPTATION_GATE_SCORE, told.gate_score),
        (ADAPTATION_GATE_BASELINE_SCORE, told.baseline_score),
        (ADAPTATION_CLUSTERS, told.clusters),
        (ADAPTATION_OUTLIER_SHARE, told.outlier_share),
    ):
        if value is not None:
            gauge.labels(gallery).set(value)


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return float(value)
