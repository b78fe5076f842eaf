"""A candidate beside the live encoder and the baseline, on embeddings alone.

    refused where  the candidate has collapsed (:mod:`adapt.gate.collapse`), or
                   score(candidate, live) < -margin, or
                   score(candidate, baseline) < -baseline_margin, or
                   a weighed or watched signal is more than ``max_drop`` scales below the live
                   encoder's, or
                   agreement within tracks or across overlapping cameras is more than
                   ``max_track_drop`` below that of either, or
                   likeness to the live encoder < ``min_likeness``

The margin against the live encoder is what two draws of a site differ by; without the baseline,
losses below it would add up night by night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapt.gate.collapse import collapsed
from adapt.gate.likeness import endorsement, likeness
from adapt.gate.observation import Observation
from adapt.gate.overlap import overlap
from adapt.gate.sample import Sample
from adapt.gate.score import BOUND, WEIGHED, contributions, score, standings
from adapt.gate.settings import GateSettings
from adapt.gate.signals import Figures, measure
from adapt.gate.tracklets import agreement, find_pairs
from adapt.gate.verdict import Signal
from adapt.gate.view import View

__all__ = ["Findings", "compare", "weigh"]

# Standard deviation of the score between draws of this many crops of one site (docs/gate.md).
_SURE, _DEVIATION = 1500, 0.08
_TRACKS, _OVERLAP = "track_agreement", "overlap_agreement"


@dataclass(frozen=True)
class Findings:
    """What a comparison gives.

    Attributes:
        score: Against the live encoder; -4 where nothing could be measured.
        baseline_score: Against the baseline, where there is one.
        refusals: Why the candidate is refused; empty where it passes.
        signals: All measurements.
        notes: What could not be measured, or is weak.
    """

    score: float
    baseline_score: float | None
    refusals: tuple[str, ...]
    signals: tuple[Signal, ...]
    notes: tuple[str, ...]


def compare(
    candidate: Observation,
    live: Observation,
    baseline: Observation | None,
    sample: Sample,
    settings: GateSettings,
    *,
    threads: int,
) -> Findings:
    """Measures the encoders on the same crops and weighs the candidate.

    Args:
        candidate: What the new encoder gave.
        live: What the one in service gave, without fault.
        baseline: What the frozen one gave, without fault, if there is one.
        sample: What is known of the crops.
        settings: Bounds.
        threads: To compute with.
    """
    lowest = None if baseline is None else -BOUND
    fault = _unusable(candidate, live, settings)
    if fault:
        return Findings(-BOUND, lowest, (fault,), (), sample.notes)
    views = [View(live, sample, threads=threads)]
    if baseline is not None:
        views.append(View(baseline, sample, threads=threads))
    view = View(candidate, sample, threads=threads)
    notes = list(sample.notes)
    figures = _figures([view, *views], sample, settings, notes)
    ours, others = figures[0], figures[1:]
    refusals = collapsed(ours, others[0], clusters=view.clusters.clusters, settings=settings)
    found, reasons = weigh(ours, others[0], settings)
    against = score(ours, others[1]) if baseline is not None else None
    refusals += reasons
    if against is not None:
        refusals += _behind("baseline", against, settings.baseline_margin, ours, others[1])
    for name, other in zip(("live", "baseline"), others, strict=False):
        refusals += _disagrees(name, ours, other, settings.max_track_drop)
    alike = likeness(view, views[0])
    if alike < settings.min_likeness:
        refusals.append(
            f"likeness: {alike:.3f} of the live encoder's neighbours are kept, below"
            f" {settings.min_likeness}: this encoder sees something else"
        )
    if len(view) < _SURE:
        deviation = _DEVIATION * (_SURE / len(view)) ** 0.5
        notes.append(f"{len(view)} crops: the score is sure to about {deviation:.2f}")
    signals = _signals(figures)
    signals.append(Signal("likeness", alike, 1.0))
    signals.append(Signal("endorsement", endorsement(view, views[0]), 1.0))
    return Findings(found, against, tuple(refusals), tuple(signals), tuple(notes))


def weigh(ours: Figures, live: Figures, settings: GateSettings) -> tuple[float, list[str]]:
    """The score against the live encoder's figures, and what they alone refuse a candidate for."""
    found = score(ours, live)
    reasons = _behind("live", found, settings.margin, ours, live)
    return found, reasons + _dropped(ours, live, settings.max_drop)


def _unusable(candidate: Observation, live: Observation, settings: GateSettings) -> str:
    if candidate.fault:
        return f"collapse: {candidate.fault}"
    ours, theirs = candidate.features.shape[1], live.features.shape[1]
    if settings.same_dimension and ours != theirs:
        return f"dimension: the candidate gives {ours} values, the live encoder {theirs}"
    return ""


def _figures(
    views: Sequence[View], sample: Sample, settings: GateSettings, notes: list[str]
) -> list[dict[str, float | None]]:
    figures = [measure(view) for view in views]
    pairs = find_pairs(sample, views_overlap=settings.views_overlap, seed=settings.seed)
    if pairs is not None:
        notes += pairs.notes
    elif (sample.sightings.tracks >= 0).any():
        notes.append("too few tracks: agreement within tracks is not measured")
    for view, figure in zip(views, figures, strict=True):
        figure[_TRACKS] = None if pairs is None else agreement(view, pairs)
        named = settings.overlapping
        figure[_OVERLAP] = overlap(view, sample, named) if named else None
    return figures


def _behind(who: str, found: float, margin: float, ours: Figures, theirs: Figures) -> list[str]:
    if found >= -margin:
        return []
    parts = contributions(ours, theirs)
    worst = sorted((name for name in parts if parts[name] < 0), key=parts.__getitem__)[:3]
    named = ", ".join(
        f"{name} {_text(ours[name])} instead of {_text(theirs[name])}" for name in worst
    )
    return [f"{who}: score {found:.3f} is below {-margin:g}: {named}"]


def _dropped(ours: Figures, theirs: Figures, most: float) -> list[str]:
    return [
        f"{name}: {_text(ours[name])} instead of the live encoder's {_text(theirs[name])} is a"
        f" fall of {-part:.1f} standard deviations, more than {most:g}"
        for name, part in standings(ours, theirs).items()
        if -part > most
    ]


def _disagrees(who: str, ours: Figures, theirs: Figures, most: float) -> list[str]:
    found = []
    for name in (_TRACKS, _OVERLAP):
        here, there = ours.get(name), theirs.get(name)
        if here is not None and there is not None and there - here > most:
            found.append(
                f"{name}: {here:.3f} is more than {most:g} below the {who} encoder's {there:.3f}"
            )
    return found


def _signals(figures: Sequence[Figures]) -> list[Signal]:
    ours, live = figures[:2]
    frozen: Figures = figures[2] if len(figures) > 2 else {}
    return [
        Signal(
            name, ours[name], live[name], frozen.get(name),
            WEIGHED[name].weight if name in WEIGHED else 0.0,
        )
        for name in ours
    ]  # fmt: skip


def _text(value: float | None) -> str:
    return "not measurable" if value is None else f"{value:.3f}"
