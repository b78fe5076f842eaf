"""``resight simulate``: a multi-camera crop set with known identities."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from resight.console import emit, progress
from resight.simulate.dataset import GENERATOR_VERSION, SPLITS, SimulationReport, simulate
from resight.simulate.settings import SimulationSettings

__all__ = ["app"]

app = typer.Typer(add_completion=False)

_DEFAULTS = SimulationSettings()


@app.command()
def run(
    output: Annotated[Path, typer.Option(help="Folder to write; must not exist or be empty.")],
    identities: Annotated[
        int, typer.Option(help="People in all; training and test people are disjoint.")
    ] = _DEFAULTS.identities,
    cameras: Annotated[int, typer.Option(help="Cameras of the site.")] = _DEFAULTS.cameras,
    crops: Annotated[
        int | None,
        typer.Option(help="Crops in all, distractors included; 24 for each person when not given."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal bytes.")] = _DEFAULTS.seed,
    train_share: Annotated[
        float, typer.Option(help="Share of the people who are only in the training set.")
    ] = _DEFAULTS.train_share,
    look_alikes: Annotated[
        int, typer.Option(help="How many people share the colours of their clothes.")
    ] = _DEFAULTS.look_alikes,
    camera_spread: Annotated[
        float, typer.Option(help="How far the cameras' colours lie apart, 0 to 2.")
    ] = _DEFAULTS.camera_spread,
    distractor_share: Annotated[
        float, typer.Option(help="Share of crops that show a bystander or nobody, 0 to 0.5.")
    ] = _DEFAULTS.distractor_share,
    workers: Annotated[
        int | None, typer.Option(help="Processes to draw with; all processors when not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Make a multi-camera crop set with known identities: DIR/train, DIR/query, DIR/gallery."""
    settings = SimulationSettings(
        identities=identities,
        cameras=cameras,
        crops=24 * identities if crops is None else crops,
        seed=seed,
        train_share=train_share,
        look_alikes=look_alikes,
        camera_spread=camera_spread,
        distractor_share=distractor_share,
    )
    started = time.perf_counter()
    with progress("drawing crops", settings.crops) as bar:
        report = simulate(settings, output, workers=workers, progress=bar.advance)
    seconds = time.perf_counter() - started
    payload = {
        "output": str(report.directory),
        "crops": report.crops,
        "identities": report.identities,
        "distractors": report.distractors,
        "cameras": settings.cameras,
        "seed": settings.seed,
        "generator_version": GENERATOR_VERSION,
        "seconds": round(seconds, 3),
    }
    emit(payload, as_json=as_json, text=_summary(report, settings, seconds))


def _summary(report: SimulationReport, settings: SimulationSettings, seconds: float) -> str:
    lines = [
        f"{split:8} {report.crops[split]:7} crops of {report.identities[split]} people"
        for split in SPLITS
    ]
    lines.append(
        f"{settings.cameras} cameras, {report.distractors} distractors in the gallery, seed "
        f"{settings.seed}, {settings.crops / seconds:.0f} crops/s"
    )
    lines.append(f"manifests with camera, time and track: {report.directory}/{{split}}.csv")
    return "\n".join(lines)
