"""Runs of ``resight adapt run`` listed in a table, each measured once and kept as a line of data.

A table is TOML: ``[[run]]`` with a ``name``, its key, and ``args``; ``crops`` names the set that is
learnt from where there are several. A run that was interrupted continues after its last whole
epoch; one that fails is reported and left out, and the others follow.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import describe

__all__ = ["Line", "Sets", "Table", "add_options", "lines_of"]

Line = dict[str, Any]


@dataclass(frozen=True)
class Sets:
    """Crops of the runs.

    Attributes:
        train: What is learnt from, by name; a run without ``crops`` takes ``train``.
        scores: Query and gallery of each evaluation, by name.
    """

    train: Mapping[str, Path]
    scores: Mapping[str, tuple[Path, Path]]


def add_options(parser: argparse.ArgumentParser, *, table: Path, results: Path) -> None:
    """The options that every table has."""
    parser.add_argument("--work", type=Path, default=Path("RUNS"))
    parser.add_argument("--table", type=Path, default=table)
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--only", default="*", help="Names to run, as a shell pattern.")
    parser.add_argument("--list", action="store_true", help="Say what is left, and run nothing.")
    parser.add_argument("--markdown", action="store_true", help="Print the results as a table.")


def lines_of(results: Path) -> list[Line]:
    """What has been measured."""
    if not results.is_file():
        return []
    return [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]


class Table:
    """The runs of a table that have no result yet.

    Args:
        options: As parsed with ``add_options``.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._work: Path = options.work
        self._results: Path = options.results
        done = {line["name"] for line in lines_of(options.results)}
        table = tomllib.loads(options.table.read_text(encoding="utf-8"))
        self.left: list[dict[str, str]] = [
            run
            for run in table["run"]
            if run["name"] not in done and fnmatch.fnmatch(run["name"], options.only)
        ]

    def run(self, sets: Sets, **names: Path) -> int:
        """Make every run that is left; the number of those that failed.

        Args:
            sets: Crops.
            names: What ``{NAME}`` in a run's arguments stands for.
        """
        failed = 0
        for run in self.left:
            arguments = [part.format(**names) for part in run["args"].split()]
            line = self._measure(run, arguments, sets)
            failed += line is None
            if line is not None:
                self._results.parent.mkdir(parents=True, exist_ok=True)
                with self._results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
        return failed

    def _measure(self, run: dict[str, str], arguments: Sequence[str], sets: Sets) -> Line | None:
        name = run["name"]
        folder = self._work / name.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        output = folder / "run"
        crops = sets.train[run.get("crops", "train")]
        command = ["adapt", "run", "--crops", str(crops), "--output", str(output)]
        command += ["--cache", str(self._work / "cache"), *arguments]
        resumed = (output / "checkpoint.pt").exists()
        if resumed and not (output / "bundle").exists():
            command.append("--resume")
        cost: dict[str, float] = {}
        if not (output / "bundle").exists():
            print(f"{name}: resight {' '.join(command)}", file=sys.stderr, flush=True)
            status, cost = _timed(command, folder / "log")
            if status:
                print(f"{name}: failed, see {folder / 'log'}", file=sys.stderr, flush=True)
                return None
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        return {
            "name": name,
            "run": folder.name,
            **{
                part: _evaluate(output / "bundle", query, gallery)
                for part, (query, gallery) in sets.scores.items()
            },
            # Of an interrupted run only its last part was timed.
            **({} if resumed else cost),
            "clusters": [epoch["clusters"] for epoch in summary["epochs"]],
            "outliers": [epoch["outliers"] for epoch in summary["epochs"]],
            "warnings": summary["warnings"],
            "machine": describe(),
            "args": run["args"],
        }


def _timed(arguments: Sequence[str], log: Path) -> tuple[int, dict[str, float]]:
    start = time.perf_counter()
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "resight", *arguments], stdout=stream, stderr=stream
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, {
        "wall_s": round(time.perf_counter() - start, 1),
        "processor_s": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "cores": len(os.sched_getaffinity(0)),
    }


def _evaluate(bundle: Path, query: Path, gallery: Path) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "resight", "adapt", "evaluate", "--bundle", str(bundle),
         "--query", str(query), "--gallery", str(gallery), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    scores = json.loads(done.stdout)
    return {key: round(scores[key], 4) for key in ("map", "rank1")}
