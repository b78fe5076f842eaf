"""``resight adapt report``: a run as a page to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from resight.console import emit
from resight.errors import InvalidArgument

__all__ = ["register"]

_MAX_VERDICT_BYTES = 2**20


def register(app: typer.Typer) -> None:
    """Add ``report`` to the group."""
    app.command("report")(report)


def report(
    *,
    run: Annotated[Path, typer.Option(help="Folder of a finished run.")],
    live: Annotated[Path, typer.Option(help="Bundle of the encoder before the run.")],
    crops: Annotated[Path, typer.Option(help="Crops to compare the two on.")],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default report.html in the run.")
    ] = None,
    verdict: Annotated[
        Path | None, typer.Option(help="The gate's JSON verdict, to be shown at the top.")
    ] = None,
    images: Annotated[bool, typer.Option(help="Whether crops are shown.")] = True,
    sample: Annotated[
        int, typer.Option(min=2, max=50_000, help="Crops looked at, at most.")
    ] = 5000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the sample and the map.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Write an HTML report: clusters, per-camera drift, most-changed crops, maps."""
    from adapt.report.night import ReportSettings, write_report  # slow to import

    target = output or run / "report.html"
    settings = ReportSettings(images=images, sample=sample, seed=seed)
    write_report(
        run, live=live, crops=crops, output=target, settings=settings,
        verdict=None if verdict is None else _verdict(verdict),
    )  # fmt: skip
    emit({"report": str(target)}, as_json=as_json, text=f"report {target}")


def _verdict(path: Path) -> dict[str, Any]:
    wrong = InvalidArgument(
        f"--verdict {path}: not a verdict of `resight adapt gate --json`", field="verdict"
    )
    if not path.is_file() or path.stat().st_size > _MAX_VERDICT_BYTES:
        raise wrong
    try:
        payload = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise wrong from error
    if not isinstance(payload, dict) or not {"passed", "score", "reasons"} <= payload.keys():
        raise wrong
    return payload
