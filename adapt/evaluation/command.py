"""``resight adapt evaluate``: mAP and CMC of a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from adapt.evaluation.evaluate import Evaluation, evaluate_bundle
from resight.bundle.reader import open_bundle
from resight.console import emit, progress

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add ``evaluate`` to the group."""
    app.command("evaluate")(evaluate)


def evaluate(
    bundle: Annotated[Path, typer.Option(help="Bundle, a folder or a .tar.")],
    query: Annotated[Path, typer.Option(help="Query crops: folder or manifest with identities.")],
    gallery: Annotated[Path, typer.Option(help="Gallery crops, likewise.")],
    ignore_cameras: Annotated[
        bool, typer.Option("--ignore-cameras", help="Rank crops of the query's own camera too.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Crops a run of the encoder.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Evaluate a bundle by the Market-1501 protocol: mAP and CMC, as fractions."""
    opened = open_bundle(bundle)
    with progress("embed") as bar:
        evaluation = evaluate_bundle(
            opened, query, gallery, ignore_cameras=ignore_cameras, batch=batch, advance=bar.advance
        )
    payload = _payload(evaluation) | {"model_version": opened.model_version}
    emit(payload, as_json=as_json, text=_text(payload))


def _payload(evaluation: Evaluation) -> dict[str, Any]:
    metrics = evaluation.metrics
    return {
        "map": metrics.map,
        "rank1": metrics.rank(1),
        "rank5": metrics.rank(5),
        "rank10": metrics.rank(10),
        "queries": metrics.queries,
        "gallery": metrics.gallery,
        "queries_without_identity": metrics.queries_without_identity,
        "queries_without_match": metrics.queries_without_match,
        "skipped": len(evaluation.skipped),
        "ignored_cameras": evaluation.ignored_cameras,
        "seconds": {name: round(value, 3) for name, value in evaluation.seconds.items()},
        "notes": evaluation.notes,
    }


def _text(payload: dict[str, Any]) -> str:
    figures = ", ".join(
        f"{name} {100 * payload[key]:.1f} %"
        for name, key in (
            ("mAP", "map"), ("rank-1", "rank1"), ("rank-5", "rank5"), ("rank-10", "rank10"),
        )
    )  # fmt: skip
    lines = [f"{figures} ({payload['queries']} queries, {payload['gallery']} gallery crops)"]
    return "\n".join(lines + [f"note: {note}" for note in payload["notes"]])
