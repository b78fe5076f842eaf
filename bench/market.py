"""Adaptation runs on Market-1501, one after another, cut and resumed at will; results as data.

::

    python -m bench market --market DIR --osnet FILE.pth --work RUNS [--only PATTERN] [--list]

runs what ``bench/experiments/market.toml`` lists and ``docs/results/market.jsonl`` lacks, and
appends a line for each: the arguments, mAP and rank-1 on the validation identities (``bench
validation_split``) and on the dev half, wall and processor seconds, peak memory, clusters by epoch,
machine and versions. An interrupted run continues after its last whole epoch. A run that fails is
reported and left out; the others follow.

``--markdown`` prints the table of docs/benchmarks.md. ``DIR`` holds ``bounding_box_train``,
``query`` and ``bounding_box_test``; no label is used but by ``resight adapt evaluate``.
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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import validation_split
from bench.machine import describe

_HERE = Path(__file__).parent
TABLE = _HERE / "experiments" / "market.toml"
RESULTS = _HERE.parent / "docs" / "results" / "market.jsonl"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench market", description=__doc__)
    parser.add_argument("--market", type=Path, default=Path("MARKET"))
    parser.add_argument("--osnet", type=Path, default=Path("OSNET.pth"))
    parser.add_argument("--work", type=Path, default=Path("RUNS"))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", default="*", help="Names to run, as a shell pattern.")
    parser.add_argument("--list", action="store_true", help="Say what is left, and run nothing.")
    parser.add_argument("--markdown", action="store_true", help="Print the results as a table.")
    options = parser.parse_args(argv)
    if options.markdown:
        print(_markdown(_lines(options.results)))
        return 0
    table = tomllib.loads(options.table.read_text(encoding="utf-8"))
    done = {line["name"] for line in _lines(options.results)}
    left = [
        run
        for run in table["run"]
        if run["name"] not in done and fnmatch.fnmatch(run["name"], options.only)
    ]
    if options.list:
        print("\n".join(run["name"] for run in left))
        return 0
    if not (options.work / "validation").is_dir():
        validation_split.main(
            ["--train", str(options.market / "bounding_box_train"),
             "--output", str(options.work / "validation")]
        )  # fmt: skip
    failed = 0
    for run in left:
        arguments = [part.format(OSNET=options.osnet) for part in run["args"].split()]
        line = _measure(run["name"], arguments, options)
        failed += line is None
        if line is not None:
            line["args"] = run["args"]
            options.results.parent.mkdir(parents=True, exist_ok=True)
            with options.results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
    return 1 if failed else 0


def _markdown(lines: Sequence[dict[str, Any]]) -> str:
    rows = [
        "| run | mAP | rank-1 | mAP, validation | clusters | wall | processor | peak |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in sorted(lines, key=lambda line: str(line["name"])):
        dev, chosen = line["dev"], line["validation"]
        clusters = line["clusters"][-1] if line["clusters"] else ""
        cost = "not timed | | " if "wall_s" not in line else (
            f"{line['wall_s'] / 60:.1f} min | {line['processor_s'] / 60:.1f} min"
            f" | {line['peak_mib'] / 1024:.1f} GiB"
        )  # fmt: skip
        rows.append(
            f"| {line['name']} | {100 * dev['map']:.1f} | {100 * dev['rank1']:.1f}"
            f" | {100 * chosen['map']:.1f} | {clusters} | {cost} |"
        )
    return "\n".join(rows)


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _measure(name: str, arguments: list[str], options: argparse.Namespace) -> dict[str, Any] | None:
    """One run and its evaluations; None when the run failed."""
    folder = options.work / name.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "run"
    crops, cache = options.market / "bounding_box_train", options.work / "cache"
    command = ["adapt", "run", "--crops", str(crops), "--output", str(output)]
    command += ["--cache", str(cache), *arguments]
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
    scores = {
        "validation": (options.work / "validation/query", options.work / "validation/gallery"),
        "dev": (options.market / "query", options.market / "bounding_box_test"),
    }
    figures = {
        part: _evaluate(output / "bundle", query, gallery)
        for part, (query, gallery) in scores.items()
    }
    return {
        "name": name,
        **figures,
        # Of an interrupted run only its last part was timed.
        **({} if resumed else cost),
        "clusters": [epoch["clusters"] for epoch in summary["epochs"]],
        "outliers": [epoch["outliers"] for epoch in summary["epochs"]],
        "warnings": summary["warnings"],
        "machine": describe(),
    }


def _timed(arguments: list[str], log: Path) -> tuple[int, dict[str, float]]:
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
