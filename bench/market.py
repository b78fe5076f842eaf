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
from collections.abc import Sequence
from pathlib import Path

from bench import validation_split
from bench.experiment import Line, Sets, Table, add_options, lines_of

_HERE = Path(__file__).parent
TABLE = _HERE / "experiments" / "market.toml"
RESULTS = _HERE.parent / "docs" / "results" / "market.jsonl"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench market", description=__doc__)
    parser.add_argument("--market", type=Path, default=Path("MARKET"))
    parser.add_argument("--osnet", type=Path, default=Path("OSNET.pth"))
    add_options(parser, table=TABLE, results=RESULTS)
    options = parser.parse_args(argv)
    if options.markdown:
        print(_markdown(lines_of(options.results)))
        return 0
    table = Table(options)
    if options.list:
        print("\n".join(run["name"] for run in table.left))
        return 0
    market, split = options.market, options.work / "validation"
    if not split.is_dir():
        validation_split.main(
            ["--train", str(market / "bounding_box_train"), "--output", str(split)]
        )
    sets = Sets(
        {"train": market / "bounding_box_train"},
        {
            "validation": (split / "query", split / "gallery"),
            "dev": (market / "query", market / "bounding_box_test"),
        },
    )
    return 1 if table.run(sets, OSNET=options.osnet) else 0


def _markdown(lines: Sequence[Line]) -> str:
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
