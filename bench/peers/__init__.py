"""Our index and service beside other vector stores: same data, same cores, one run.

::

    make peers                     # installs requirements/bench-peers.txt into .peers
    python -m bench peers --rows 100000 [--dim 256] [--cores 2] [--only PATTERN] [--json]
    python -m bench peers --rows 100000 --publish     # also appends to docs/results/peers.jsonl
    python -m bench peers --markdown                  # the tables of docs/benchmarks.md, and plots

Measured: loading; searches for the top 10, unfiltered and under filters that keep 1 %, 10 % and
about 20 rows; one row replaced, one deleted, each searched for at once; restart from what was kept;
memory a row. And whether answers are right: recall against brute force (float64), rows returned
that the filter forbids, deleted rows that are found or come back.

Every store runs in a process of its own, pinned to the same ``--cores`` cores with as many threads;
the parts take turns on an otherwise idle machine. A store that is not installed is reported as
such. One that has not loaded its rows after ``--load-seconds`` is stopped and reported, and a
filter that takes long is measured with fewer queries, whose number is in the data.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe
from bench.peers import report
from bench.peers.site import Site, made_site
from bench.peers.worker import CONTESTANTS, measured, reopened, versions

__all__ = ["main"]

_ROOT = Path(__file__).parent.parent.parent
RESULTS = _ROOT / "docs" / "results" / "peers.jsonl"
IMAGES = _ROOT / "docs" / "images"
PEERS = _ROOT / ".peers"
# A restart that takes longer has failed.
PATIENCE = 1800


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or print what was measured."""
    options = _parser().parse_args(arguments)
    if options.peers.is_dir():
        # Behind ours, so that both sides of every shared package are the locked ones.
        sys.path.append(str(options.peers))
    if options.part:
        print(json.dumps(_part(options)))
        return 0
    if options.markdown:
        lines = report.newest(options.results)
        print(report.markdown(lines))
        report.plots(lines, options.images)
        return 0
    lines = []
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        made_site(Path(folder), options.rows, options.dim, options.queries)
        for name in CONTESTANTS:
            if not fnmatch.fnmatch(name, options.only):
                continue
            print(f"{name} ...", file=sys.stderr, flush=True)
            line = _line(name, Path(folder), options)
            lines.append(line)
            print(line["status"], file=sys.stderr, flush=True)
            if options.publish:
                with options.results.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line) + "\n")
    print(json.dumps(lines, indent=1) if options.json else report.markdown(lines))
    return 0


def _line(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    line: dict[str, Any] = {
        "contestant": name,
        "rows": options.rows,
        "dimension": options.dim,
        "cores": options.cores,
        "machine": describe(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    try:
        line["versions"] = versions(name)
    except ImportError as error:
        return line | {"status": f"not installed: {error.name}"}
    with tempfile.TemporaryDirectory(dir=options.work) as own:
        for part in ("measured", "reopened"):
            if part == "reopened" and ("gave_up" in line or name == "Qdrant local, memory"):
                break
            figures, problem = _run(name, part, folder, Path(own), options)
            line |= figures
            if problem:
                return line | {"status": f"failed: {problem}"}
    return line | {"status": f"gave up: {line['gave_up']}" if "gave_up" in line else "measured"}


def _run(
    name: str, part: str, folder: Path, own: Path, options: argparse.Namespace
) -> tuple[dict[str, Any], str]:
    """A part in a process of its own: its figures, and what went wrong."""
    command = [
        sys.executable, "-m", "bench", "peers", "--part", part, "--only", name,
        "--site", str(folder), "--work", str(own), "--peers", str(options.peers),
    ]  # fmt: skip
    for option in ("rows", "dim", "cores", "load_seconds", "search_seconds"):
        command += [f"--{option.replace('_', '-')}", str(getattr(options, option))]
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(options.cores)
    )
    cores = sorted(os.sched_getaffinity(0))[: options.cores]
    patience = options.load_seconds + 8 * options.search_seconds + PATIENCE
    try:
        done = subprocess.run(
            command,
            env=os.environ | threads,
            stdout=subprocess.PIPE,
            text=True,
            timeout=patience,
            check=False,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    except subprocess.TimeoutExpired:
        return {}, f"{part}: no end after {patience:.0f} s"
    if done.returncode:
        return {}, f"{part}: exit status {done.returncode}, see above"
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures, ""


def _part(options: argparse.Namespace) -> dict[str, Any]:
    site = Site(options.site, options.rows, options.dim)
    if options.part == "reopened":
        return reopened(options.only, site, options.work, options.cores)
    return measured(
        options.only,
        site,
        options.work,
        options.cores,
        options.load_seconds,
        options.search_seconds,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench peers", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--load-seconds", type=float, default=900)
    parser.add_argument("--search-seconds", type=float, default=20)
    parser.add_argument("--only", default="*", help="Stores to run, as a shell pattern.")
    parser.add_argument("--peers", type=Path, default=PEERS, help="Where they are installed.")
    parser.add_argument("--work", type=Path, help="For the data; a disk with room.")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--images", type=Path, default=IMAGES)
    parser.add_argument("--publish", action="store_true", help="Append to --results.")
    parser.add_argument("--markdown", action="store_true", help="Tables and plots of --results.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--part", choices=("measured", "reopened"), help=argparse.SUPPRESS)
    parser.add_argument("--site", type=Path, help=argparse.SUPPRESS)
    return parser
