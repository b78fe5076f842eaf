"""Every method on a simulated site: all its cameras, one of them, and without cameras.

::

    python -m bench simulator --work RUNS [--only PATTERN] [--list] [--markdown]

simulates a site (``resight simulate``, defaults) once, runs what
``bench/experiments/simulator.toml`` lists and ``docs/results/simulator.jsonl`` lacks, and appends a
line for each, as ``bench market`` does. Drawn people are easier to tell apart by their clothes and
harder by all else than real ones are: this shows that every method runs and learns from what it is
given, not how good it is.
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from bench.experiment import Line, Sets, Table, add_options, lines_of

_HERE = Path(__file__).parent
TABLE = _HERE / "experiments" / "simulator.toml"
RESULTS = _HERE.parent / "docs" / "results" / "simulator.jsonl"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench simulator", description=__doc__)
    add_options(parser, table=TABLE, results=RESULTS)
    options = parser.parse_args(argv)
    if options.markdown:
        print(_markdown(lines_of(options.results)))
        return 0
    table = Table(options)
    if options.list:
        print("\n".join(run["name"] for run in table.left))
        return 0
    site = options.work / "site"
    if not site.is_dir():
        subprocess.run(
            [sys.executable, "-m", "resight", "simulate", "--output", str(site)], check=True
        )
    one = site / "one-camera.csv"
    if not one.is_file():
        _one_camera(site / "train.csv", one)
    sets = Sets(
        {"train": site / "train.csv", "one-camera": one},
        {"site": (site / "query.csv", site / "gallery.csv")},
    )
    return 1 if table.run(sets) else 0


def _one_camera(manifest: Path, output: Path) -> None:
    """The crops of the camera that has most, still as a manifest with its camera."""
    with manifest.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    camera, _ = Counter(row["camera"] for row in rows).most_common(1)[0]
    with output.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(row for row in rows if row["camera"] == camera)


def _markdown(lines: Sequence[Line]) -> str:
    rows = ["| run | mAP | rank-1 | clusters | processor | peak |", "|---|---|---|---|---|---|"]
    for line in lines:
        clusters = line["clusters"][-1] if line["clusters"] else ""
        cost = "not timed | |" if "processor_s" not in line else (
            f"{line['processor_s'] / 60:.1f} min | {line['peak_mib'] / 1024:.1f} GiB |"
        )  # fmt: skip
        rows.append(
            f"| {line['name']} | {100 * line['site']['map']:.1f}"
            f" | {100 * line['site']['rank1']:.1f} | {clusters} | {cost}"
        )
    return "\n".join(rows)
