"""The steps of the demo in order."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from resight.client.connection import connect
from resight.client.tls import PLAINTEXT
from resight.console import note, progress
from resight.demo.contact_sheet import draw_contact_sheet, pick_answers
from resight.demo.folder import DemoFolder
from resight.demo.probing import Answer, probe_service
from resight.demo.process import run_command, serving
from resight.demo.settings import DemoSettings
from resight.errors import ResightError

__all__ = ["DemoOutcome", "demonstrate"]

_STEPS = 6


@dataclass(frozen=True)
class DemoOutcome:
    """What a demo measured.

    Args:
        map_before, map_after: mAP of the starting and the adapted encoder, fractions.
        rank1_before, rank1_after: Rank-1, likewise.
        queries, top1_correct: Probes asked of the service, and how many it answered rightly first.
        adapt_s, export_s: Wall seconds of the adaptation and of its export.
        serve_ready_s: From the start of the service to its ready line.
        wall_s: Of everything.
        bundle, contact_sheet: Where they lie.
    """

    map_before: float
    map_after: float
    rank1_before: float
    rank1_after: float
    queries: int
    top1_correct: int
    adapt_s: float
    export_s: float
    serve_ready_s: float
    wall_s: float
    bundle: str
    contact_sheet: str

    def payload(self) -> dict[str, Any]:
        """The outcome as JSON values."""
        return asdict(self)


def demonstrate(settings: DemoSettings, folder: DemoFolder) -> DemoOutcome:
    """Run every step as a user would, through the real command line.

    Raises:
        ResightError: A step failed; the message names its command and shows its last lines.
    """
    started = time.perf_counter()
    run = _Demo(settings, folder)
    run.simulate()
    before = run.evaluate_start()
    adapt_s, export_s = run.adapt()
    after = run.evaluate_adapted()
    answers, serve_ready_s = run.serve_and_ask()
    chosen = pick_answers(answers, settings.rows, settings.seed)
    draw_contact_sheet(chosen, folder.contact_sheet, matches=settings.matches)
    outcome = DemoOutcome(
        map_before=before["map"],
        map_after=after["map"],
        rank1_before=before["rank1"],
        rank1_after=after["rank1"],
        queries=len(answers),
        top1_correct=sum(answer.correct for answer in answers),
        adapt_s=round(adapt_s, 2),
        export_s=round(export_s, 2),
        serve_ready_s=round(serve_ready_s, 2),
        wall_s=round(time.perf_counter() - started, 2),
        bundle=str(folder.after / "bundle"),
        contact_sheet=str(folder.contact_sheet),
    )
    folder.summary.write_text(json.dumps(outcome.payload(), indent=2) + "\n", "utf-8")
    return outcome


class _Demo:
    def __init__(self, settings: DemoSettings, folder: DemoFolder) -> None:
        self._settings = settings
        self._folder = folder
        self._step = 0

    def simulate(self) -> None:
        settings = self._settings
        self._announce(f"simulate {settings.crops} crops on {settings.cameras} cameras")
        self._command(
            "simulate", "simulate", "--output", self._folder.crops,
            "--identities", settings.identities, "--cameras", settings.cameras,
            "--crops", settings.crops, "--seed", settings.seed,
        )  # fmt: skip

    def evaluate_start(self) -> dict[str, Any]:
        self._announce("measure the starting encoder (ImageNet weights, nothing learnt)")
        self._adapt("adapt-before", self._folder.before, epochs=0)
        return self._evaluate("evaluate-before", self._folder.before)

    def adapt(self) -> tuple[float, float]:
        """Adapt; returns the seconds of the adaptation and of the export."""
        self._announce(f"adapt to the unlabelled training crops, {self._settings.epochs} epochs")
        begun = time.perf_counter()
        answer = self._adapt("adapt", self._folder.after, epochs=self._settings.epochs)
        export_s = float(answer["seconds"]["export"])
        return time.perf_counter() - begun - export_s, export_s

    def evaluate_adapted(self) -> dict[str, Any]:
        self._announce("measure the adapted encoder")
        return self._evaluate("evaluate-after", self._folder.after)

    def serve_and_ask(self) -> tuple[list[Answer], float]:
        """Serve, ingest and query; returns the answers and the seconds until ready."""
        folder = self._folder
        self._announce("serve the bundle and ingest the gallery")
        command = _texts("serve", "--bundle", folder.after / "bundle", "--data", folder.data,
                         "--grpc-port", 0, "--rest-port", 0)  # fmt: skip
        with serving(command, log=folder.logs / "serve.log") as server:
            report = self._command("ingest", "ingest", folder.crops / "gallery.csv",
                                   "--target", server.grpc, "--register-cameras")  # fmt: skip
            if report["rejected"]:
                raise ResightError(f"the service rejected {report['rejected']} crops: {report}")
            self._announce("ask the service for every query crop")
            # As its service is started: without what the environment says of others.
            with (
                connect(server.grpc, trust=PLAINTEXT) as connection,
                progress("queries") as bar,
            ):
                answers = probe_service(
                    connection, folder.crops, top_k=self._settings.matches, advance=bar.advance
                )
        return answers, server.ready_seconds

    def _adapt(self, log: str, output: Path, *, epochs: int) -> dict[str, Any]:
        settings = self._settings
        options = [text for option in settings.options for text in ("--set", option)]
        return self._command(
            log, "adapt", "run", "--crops", self._folder.crops / "train.csv", "--output", output,
            "--cache", self._folder.cache, "--height", settings.height, "--width", settings.width,
            "--epochs", epochs, "--seed", settings.seed, *options,
        )  # fmt: skip

    def _evaluate(self, log: str, run: Path) -> dict[str, Any]:
        crops = self._folder.crops
        return self._command(
            log, "adapt", "evaluate", "--bundle", run / "bundle",
            "--query", crops / "query.csv", "--gallery", crops / "gallery.csv",
        )  # fmt: skip

    def _command(self, log: str, *arguments: object) -> dict[str, Any]:
        return run_command(_texts(*arguments), log=self._folder.logs / f"{log}.log")

    def _announce(self, what: str) -> None:
        self._step += 1
        note(f"[{self._step}/{_STEPS}] {what}")


def _texts(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]
