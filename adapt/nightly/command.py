"""``resight adapt nightly``: a whole night against a running service."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from adapt.gate.settings import read_settings
from adapt.nightly.budget import duration
from adapt.nightly.metrics import checked_gateway, exposition, push, write
from adapt.nightly.outcome import NightOutcome, metrics_of
from adapt.nightly.settings import NightSettings
from adapt.nightly.state import Memory, NightState
from resight.bundle import open_bundle
from resight.client.connection import DEFAULT_TARGET
from resight.console import emit, note
from resight.errors import InvalidArgument, ResightError
from resight.interruption import interrupted_by_sigterm

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add ``nightly`` to the group."""
    app.command("nightly")(nightly)


def nightly(
    *,
    live: Annotated[
        Path, typer.Option(help="Bundle of the encoder that the gallery is served by.")
    ],
    state: Annotated[Path, typer.Option(help="Folder that remembers from night to night.")],
    target: Annotated[str, typer.Option(help="host:port of the service.")] = DEFAULT_TARGET,
    gallery: Annotated[str, typer.Option(help="Gallery (site or tenant).")] = "default",
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Frozen bundle no night may fall behind; default the first night's live."
        ),
    ] = None,
    gate_config: Annotated[
        Path | None, typer.Option(help="Settings of the gate, as in docs/gate.md.")
    ] = None,
    replay: Annotated[float, typer.Option(help="Older crops for each new one.")] = 0.3,
    min_crops: Annotated[int, typer.Option(help="With fewer new crops: skipped, exit 0.")] = 500,
    max_crops: Annotated[int, typer.Option(help="Most new crops, an even share a camera.")] = 0,
    time_budget: Annotated[
        str | None, typer.Option(help="For the whole night, such as 90m or 4h.")
    ] = None,
    lease: Annotated[float, typer.Option(help="Seconds the lease holds without a sign.")] = 300.0,
    memory_only: Annotated[
        bool, typer.Option("--memory-only", help="Keep crops in /dev/shm, show none.")
    ] = False,
    method: Annotated[str | None, typer.Option(help="As in `adapt run`.")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="fast, night or published; by default published on CUDA, else night."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Most rounds of labelling and training.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(help="Steps an epoch.")] = None,
    p: Annotated[int | None, typer.Option("--p", help="Pseudo-identities a batch.")] = None,
    k: Annotated[int | None, typer.Option("--k", help="Crops of each.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything random.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as .yaml, .toml or .json.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, repeatable; see docs/adapt.md.")
    ] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(help="Write metrics for the textfile collector (*.prom).")
    ] = None,
    push_gateway: Annotated[
        str | None, typer.Option(help="Push metrics to http://host:9091.")
    ] = None,
    vector_map: Annotated[
        bool, typer.Option(help="Attach a map from the live encoder's vectors, if one holds.")
    ] = False,
    report: Annotated[bool, typer.Option(help="Write STATE/report.html.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Adapt the live encoder to the day's crops and register what passes the gate.

    Exits 0 when a candidate is registered or there was too little to learn from, 3 when the gate
    refused, 1 when the night failed or another one holds the lease. See docs/nightly.md.
    """
    from adapt.nightly.learning import night_config
    from adapt.nightly.night import run_night

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InvalidArgument(
            "a night is one process: each of several would ask for the lease; start it without"
            " torchrun",
            field="WORLD_SIZE",
        )
    encoder = open_bundle(live)
    if baseline is not None:
        open_bundle(baseline, golden=False)
    gateway = None if push_gateway is None else checked_gateway(push_gateway)
    options = {
        "method": method, "preset": preset, "epochs": epochs, "iterations": iterations, "p": p,
        "k": k, "seed": seed,
    }  # fmt: skip
    resolved = night_config(
        encoder, live, file=config, assignments=assignments or [], options=options
    )
    settings = NightSettings(
        target=target,
        gallery=gallery,
        state=state,
        live=live,
        baseline=baseline,
        gate=read_settings(gate_config),
        lease_seconds=lease,
        time_budget=None if time_budget is None else duration(time_budget),
        replay=replay,
        min_crops=min_crops,
        max_crops=max_crops,
        memory_only=memory_only,
        vector_map=vector_map,
        report=report,
        seed=resolved.seed,
    )
    folder = NightState(state, memory_only=memory_only)
    outcome = NightOutcome(gallery)
    with interrupted_by_sigterm(), folder.opened():
        try:
            run_night(settings, encoder, resolved, folder, outcome)
        finally:
            _publish(outcome, folder.memory(), metrics_file, gateway)
    emit(outcome.payload(), as_json=as_json, text=_text(outcome, folder))
    if outcome.result in ("failed", "held"):
        note(f"error: {outcome.message}")
    raise typer.Exit(outcome.exit_code)


def _publish(outcome: NightOutcome, memory: Memory, file: Path | None, gateway: str | None) -> None:
    """Metrics out; a night is not failed by what watches it."""
    text = exposition(metrics_of(outcome, memory, now=time.time()), gallery=outcome.gallery)
    try:
        if file is not None:
            write(file, text)
    except OSError as error:
        note(f"warning: --metrics-file {file} could not be written: {error}")
    try:
        if gateway is not None:
            push(gateway, text, gallery=outcome.gallery)
    except (OSError, ResightError) as error:
        note(f"warning: --push-gateway {gateway} took no metrics: {error}")


def _text(outcome: NightOutcome, state: NightState) -> str:
    crops = outcome.crops
    lines = [f"night of gallery {outcome.gallery}: {outcome.result}"]
    if outcome.reason:
        lines[0] += f" ({outcome.reason})"
    if outcome.message:
        lines.append(outcome.message)
    if "new" in crops:
        lines.append(f"{crops['new']} new crops and {crops['replay']} older ones used")
    if outcome.model_version:
        lines.append(f"candidate {outcome.model_version} is registered; {state.candidate}")
    if "report" in outcome.seconds:
        lines.append(f"report {state.report}")
    return "\n".join(lines)
