"""From two bundles and unlabelled crops to a verdict."""

from __future__ import annotations

import time
from pathlib import Path

from adapt.clustering.blocks import available_threads
from adapt.gate.comparison import Findings, compare
from adapt.gate.observation import Observation, Observations, observe
from adapt.gate.sample import describe, draw
from adapt.gate.score import BOUND
from adapt.gate.settings import GateSettings
from adapt.gate.verdict import Verdict
from resight.bundle.reader import open_bundle
from resight.console import progress
from resight.crops import open_source
from resight.errors import InvalidArgument

__all__ = ["judge"]


def judge(
    candidate: Path,
    live: Path,
    crops: str | Path,
    *,
    baseline: Path | None = None,
    settings: GateSettings | None = None,
) -> Verdict:
    """Compares a candidate with the live encoder on unlabelled crops.

    A refusal is an answer, not an error: see ``Verdict.passed``.

    Args:
        candidate: Bundle of the new encoder, a folder or ``.tar``.
        live: Bundle of the encoder in service.
        crops: Folder or manifest; identities in it are never read.
        baseline: A frozen bundle that no chain of nights may fall behind.
        settings: Default ``GateSettings()``.

    Raises:
        NotFound, InvalidArgument: Crops or a bundle that cannot be read, or a live encoder or
            baseline that fails.
        BundleCorrupt: A bundle is not what its digests say.
    """
    settings = settings or GateSettings()
    threads = settings.threads or available_threads()
    started = time.perf_counter()
    # Golden outputs were compared when each was made; here the crops show what the encoder does.
    opened = [
        open_bundle(path, golden=False) for path in (candidate, live, baseline) if path is not None
    ]
    refs = draw(open_source(crops).scan().require_crops(), settings.sample, seed=settings.seed)
    with progress("embed crops", len(refs)) as bar:
        seen = observe(
            opened, refs, copies=settings.copies, seed=settings.seed, advance=bar.advance
        )
    embedded = time.perf_counter()
    _require_sound(seen, ("live", "baseline"))
    findings = _findings(seen, settings, threads)
    ended = time.perf_counter()
    notes = list(findings.notes)
    if seen.skipped:
        notes.append(f"{len(seen.skipped)} crops could not be decoded and were left out")
    passed = not findings.refusals
    return Verdict(
        passed=passed,
        score=findings.score,
        baseline_score=findings.baseline_score,
        reasons=findings.refusals or (_praise(findings),),
        signals=findings.signals,
        candidate=opened[0].model_version,
        live=opened[1].model_version,
        baseline=opened[2].model_version if baseline is not None else "",
        crops=len(seen.kept),
        notes=tuple(notes),
        settings=settings.model_dump(mode="json"),
        seconds={"embed": embedded - started, "compare": ended - embedded},
    )


def _findings(seen: Observations, settings: GateSettings, threads: int) -> Findings:
    ours, live, *frozen = seen.of
    baseline: Observation | None = frozen[0] if frozen else None
    if len(seen.kept) < settings.least:
        reason = (
            f"crops: {len(seen.kept)} usable ones are too few to judge by, {settings.least} are"
            " needed"
        )
        return Findings(-BOUND, None if baseline is None else -BOUND, (reason,), (), ())
    return compare(ours, live, baseline, describe(seen.kept), settings, threads=threads)


def _require_sound(seen: Observations, names: tuple[str, ...]) -> None:
    for name, observation in zip(names, seen.of[1:], strict=False):
        if observation.fault:
            raise InvalidArgument(
                f"{name}: the encoder to compare with fails: {observation.fault}", field=name
            )


def _praise(findings: Findings) -> str:
    text = f"score {findings.score:+.3f} against the live encoder"
    if findings.baseline_score is not None:
        text += f", {findings.baseline_score:+.3f} against the baseline"
    return text
