"""``resight adapt``: run, cluster, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adapt.clustering.command import register as register_cluster
from adapt.evaluation.command import register as register_evaluate
from adapt.gate.command import register as register_gate
from adapt.nightly.command import register as register_nightly
from adapt.report.command import register as register_report
from resight.console import emit, note
from resight.interruption import interrupted_by_sigterm

if TYPE_CHECKING:
    from adapt.training.run import RunOutcome

__all__ = ["app"]

app = typer.Typer(help="Learn from unlabelled crops; evaluate; cluster.", no_args_is_help=True)
register_cluster(app)
register_evaluate(app)
register_nightly(app)
register_gate(app)
register_report(app)


@app.command()
def run(
    *,
    crops: Annotated[Path, typer.Option(help="Folder or .csv/.parquet manifest of crops.")],
    output: Annotated[Path, typer.Option(help="Folder of the run; its bundle/ is the encoder.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="cap (default), cluster-contrast (with preset=published), spcl, calr, pplr or"
            " bn-stats."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(help="Weights: embedded (default), random, timm, a file, or a bundle."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="fast, night or published; by default published on CUDA, else fast."),
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Network, as in docs/adapt.md.")] = None,
    height: Annotated[int | None, typer.Option(help="Input height in pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Input width in pixels.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Rounds of labelling and training.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps an epoch.")] = None,
    p: Annotated[int | None, typer.Option("--p", help="Pseudo-identities a batch.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Crops of each.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    ignore_cameras: Annotated[
        bool, typer.Option("--ignore-cameras", help="Train as if no camera were known.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings as .yaml, .toml or .json.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, repeatable; see docs/adapt.md.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(help="Labelled crops of another site to learn from too (spcl)."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Decoded crops, shared by runs; default in OUTPUT.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue after the last whole epoch.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Adapt an encoder to unlabelled crops and write it as a bundle."""
    # Here, because torch takes seconds to import and the sister commands do without it.
    from adapt.training.resolve import resolve
    from adapt.training.run import adapt

    options = {
        "method": method, "init": init, "preset": preset, "backbone": backbone, "height": height,
        "width": width, "epochs": epochs, "iterations": iterations, "p": p, "k": k, "seed": seed,
        "ignore_cameras": ignore_cameras or None,
    }  # fmt: skip
    resolved = resolve(file=config, assignments=assignments or [], options=options)
    try:
        with interrupted_by_sigterm():
            outcome = adapt(crops, output, resolved, resume=resume, cache=cache, labelled=source)
    except KeyboardInterrupt:
        if (output / "checkpoint.pt").exists():
            note("interrupted; the last whole epoch is kept: continue with the same command and"
                 " --resume")  # fmt: skip
        elif any((output / "local_clusters").glob("*.pt")):
            note("interrupted in the first stage; what its cameras have so far is kept: continue"
                 " with the same command and --resume")  # fmt: skip
        else:
            note("interrupted before the first epoch was complete; nothing is kept")
        raise
    if outcome.first:
        emit(outcome.payload(), as_json=as_json, text=_text(outcome))


def _text(outcome: RunOutcome) -> str:
    summary = outcome.summary
    lines = [
        f"camera {c['camera']}: {c['clusters']} local clusters of {c['crops']} crops"
        for c in summary.local_clusters
    ]
    lines += [
        f"epoch {e.epoch}: {e.clusters} clusters, {e.outliers} crops in none, loss {e.loss:.3f},"
        f" {sum(e.seconds.values()):.1f} s"
        for e in summary.epochs
    ]
    lines += [f"warning: {warning}" for warning in summary.warnings]
    lines += [
        f"{summary.crops['usable']} crops used, {summary.crops['skipped']} skipped",
        f"bundle {outcome.directory.bundle} (model {outcome.model_version})",
        f"summary {outcome.directory.summary}, {outcome.directory.plot}",
    ]
    return "\n".join(lines)
