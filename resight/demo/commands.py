"""``resight demo``: everything, small, on this machine."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from resight.console import emit
from resight.demo.folder import DemoFolder
from resight.demo.process import shown
from resight.demo.run import DemoOutcome, demonstrate
from resight.demo.settings import DemoSettings
from resight.interruption import interrupted_by_sigterm

__all__ = ["app"]

app = typer.Typer(add_completion=False)

_DEFAULTS = DemoSettings()


@app.command()
def demo(
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Folder to write; ./resight-demo, or the next free number, if not given."
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an earlier demo in that folder.")
    ] = False,
    identities: Annotated[int, typer.Option(help="Simulated people.")] = _DEFAULTS.identities,
    cameras: Annotated[int, typer.Option(help="Simulated cameras.")] = _DEFAULTS.cameras,
    crops: Annotated[int, typer.Option(help="Simulated crops.")] = _DEFAULTS.crops,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = _DEFAULTS.seed,
    height: Annotated[int, typer.Option(help="Encoder input, pixels.")] = _DEFAULTS.height,
    width: Annotated[int, typer.Option(help="Encoder input, pixels.")] = _DEFAULTS.width,
    epochs: Annotated[int, typer.Option(help="Epochs of the adaptation.")] = _DEFAULTS.epochs,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for `adapt run`, repeatable.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Queries on the contact sheet.")] = _DEFAULTS.rows,
    matches: Annotated[int, typer.Option(help="Matches of each.")] = _DEFAULTS.matches,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Simulate, adapt, serve and query on this machine, and show what to try next."""
    settings = DemoSettings(
        identities=identities,
        cameras=cameras,
        crops=crops,
        seed=seed,
        height=height,
        width=width,
        epochs=epochs,
        options=(*_DEFAULTS.options, *(assignments or ())),
        rows=rows,
        matches=matches,
    )
    folder = DemoFolder.create(output, force=force)
    # The default action of SIGTERM would leave the service running.
    with interrupted_by_sigterm():
        outcome = demonstrate(settings, folder)
    emit(outcome.payload(), as_json=as_json, text=_text(outcome, folder))


def _text(outcome: DemoOutcome, folder: DemoFolder) -> str:
    share = 100 * outcome.top1_correct / outcome.queries
    lines = [
        "",
        f"           before    after  ({outcome.adapt_s:.0f} s of adaptation, no labels)",
        f"  mAP      {100 * outcome.map_before:5.1f} %  {100 * outcome.map_after:5.1f} %",
        f"  rank-1   {100 * outcome.rank1_before:5.1f} %  {100 * outcome.rank1_after:5.1f} %",
        "",
        f"The service answered {outcome.queries} queries over gRPC; the best match was the right"
        f" person in {outcome.top1_correct} ({share:.0f} %).",
        "",
        f"  pictures     {folder.contact_sheet}",
        f"  encoder      {outcome.bundle}",
        f"  training     {folder.after / 'summary.png'}",
        f"  crops        {folder.crops}",
        f"  everything   {folder.path} ({outcome.wall_s:.0f} s)",
        "",
        "Try next, the first in a terminal of its own:",
        *(f"  {command}" for command in next_commands(folder)),
    ]
    return "\n".join(lines)


def next_commands(folder: DemoFolder) -> list[str]:
    """Commands that go on from a demo; the first serves until Ctrl-C."""
    query = min((folder.crops / "query").glob("*.jpg"))
    bundle = str(folder.after / "bundle")
    return [
        shown(["serve", "--bundle", bundle, "--data", str(folder.data)]),
        shown(["search", str(query), "--top-k", "5"]),
        shown(["cameras", "list"]),
        "curl -s " + shlex.quote("http://127.0.0.1:7080/v1/galleries/default/stats"),
        shown(["bundle", "inspect", bundle]),
    ]
