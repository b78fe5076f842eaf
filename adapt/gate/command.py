"""``resight adapt gate``: the label-free verdict on a candidate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resight.cli import EXIT_REFUSED
from resight.console import emit

if TYPE_CHECKING:
    from adapt.gate.verdict import Verdict

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add ``gate`` to the group."""
    app.command("gate")(gate)


def gate(
    candidate: Annotated[Path, typer.Option(help="Bundle of the new encoder.")],
    live: Annotated[Path, typer.Option(help="Bundle of the encoder in service.")],
    crops: Annotated[Path, typer.Option(help="Unlabelled crops: folder or manifest.")],
    baseline: Annotated[
        Path | None, typer.Option(help="Frozen bundle that no chain of nights may fall behind.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings as .yaml, .toml or .json.")] = None,
    attach: Annotated[
        bool, typer.Option("--attach", help="Put the verdict into the candidate's bundle.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge a candidate without labels; exit 3 when it is refused."""
    from adapt.export.gate_result import attach_gate  # slow to import, as is the rest
    from adapt.gate.judgement import judge
    from adapt.gate.settings import read_settings

    verdict = judge(candidate, live, crops, baseline=baseline, settings=read_settings(config))
    payload = verdict.payload()
    if attach:
        attach_gate(candidate, payload)
    emit(payload, as_json=as_json, text=_text(verdict))
    if not verdict.passed:
        raise typer.Exit(EXIT_REFUSED)


def _text(verdict: Verdict) -> str:
    lines = [f"{'passed' if verdict.passed else 'refused'} on {verdict.crops} crops"]
    lines += [f"- {reason}" for reason in verdict.reasons]
    for signal in verdict.signals:
        shown = [
            f"{name} {value:.4f}"
            for name, value in (
                ("candidate", signal.candidate),
                ("live", signal.live),
                ("baseline", signal.baseline),
            )
            if value is not None
        ]
        lines.append(f"{signal.name}: {', '.join(shown) or 'not measured'}")
    return "\n".join(lines + [f"note: {note}" for note in verdict.notes])
