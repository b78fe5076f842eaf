"""What a night forgets of yesterday's cameras, with and without a replay sample.

::

    python -m bench replay --osnet FILE.pth --work RUNS [--market DIR] [--only PATTERN] [--markdown]

Two domains A and B with cameras of their own. Night 1 adapts OSNet x0.25 to the crops of A; night
2 goes on from its encoder with the crops of B as the new ones and, for each, so many of A as
``replay`` says. Crops are chosen as ``resight adapt nightly`` and the service choose them (shares
by camera, stretches of the log in the order of capture; ``single``: crop by crop, which was tried),
and trained on with a night's settings. Each encoder is measured on A and on B, on people that no
night saw; ``docs/results/replay.jsonl`` gets a line for each that it lacks. What was cut short goes
on after its last whole epoch.

===================  =============================================================================
sequence             A, then B
===================  =============================================================================
simulated            two sites of ``resight simulate``: cameras alike, then cameras far apart
market               Market-1501, cameras 1 to 3, then 4 to 6
market-simulated     Market-1501, cameras 1 to 3, then a simulated site
===================  =============================================================================
"""

from __future__ import annotations

import argparse
import csv
import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapt.evaluation.evaluate import evaluate_bundle
from adapt.nightly.learning import night_config
from adapt.nightly.quota import quota
from adapt.training.config import RunConfig
from adapt.training.resolve import resolve
from adapt.training.run import adapt
from bench.experiment import Line, lines_of
from bench.machine import describe
from resight.bundle import open_bundle
from service.domain.sampling import STRETCH, Sample

RESULTS = Path(__file__).parent.parent / "docs" / "results" / "replay.jsonl"
SEQUENCES = ("simulated", "market", "market-simulated")
SPLITS = ("train", "query", "gallery")
_COLUMNS = ("path", "camera", "capture_time", "track", "zone", "identity")
_MARKET = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_MARKET_NAME = re.compile(r"(-?\d+)_c(\d)s(\d)_(\d+)")
# Two sequences begin alike, so night 1 is trained once.
_SAME_A = ("market-simulated/", "market/")
_SITE = ("--identities", "80", "--cameras", "4", "--crops", "2400")

Row = dict[str, str]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench replay", description=__doc__)
    parser.add_argument("--osnet", type=Path, default=Path("OSNET.pth"))
    parser.add_argument("--market", type=Path, help="Its two sequences are left out without it.")
    parser.add_argument("--work", type=Path, default=Path("RUNS"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--preset", default="fast", help="Of every night.")
    parser.add_argument("--iterations", type=int, default=100, help="Most steps an epoch.")
    parser.add_argument("--replay", nargs="+", default=["0", "0.3", "0.3-single", "1"])
    parser.add_argument("--set", dest="settings", nargs="+", default=[], help="Of night 2 alone.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", default="*", help="Names to run, as a shell pattern.")
    parser.add_argument("--markdown", action="store_true", help="Print the results as a table.")
    options = parser.parse_args(argv)
    if options.markdown:
        print(_markdown(lines_of(options.results)))
        return 0
    for name in SEQUENCES:
        if name != "simulated" and options.market is None:
            continue
        for seed in options.seeds:
            Sequel(name, seed, options).measure()
    return 0


@dataclass(frozen=True)
class Domain:
    """Crops of some cameras: rows of a manifest by split, their paths within ``root``."""

    name: str
    rows: Mapping[str, list[Row]]


class Sequel:
    """Night 1 on A and every night 2 on B after it, with one seed."""

    def __init__(self, name: str, seed: int, options: argparse.Namespace) -> None:
        self._name = name
        self._seed = seed
        self._options = options
        self._root: Path = options.work / name
        self._done = {line["name"] for line in lines_of(options.results)}

    def measure(self) -> None:
        """Everything of it that has no line yet."""
        changed = "".join(f"/{setting}" for setting in self._options.settings)
        wanted = {f"{self._name}/live": None, self._of("night-1"): None} | {
            self._of(f"night-2/replay-{share}{changed}"): share for share in self._options.replay
        }
        left = {
            name: share
            for name, share in wanted.items()
            if name not in self._done and fnmatch.fnmatch(name, self._options.only)
        }
        if not left:
            return
        a, b = (_domain(self._root, self._name, which, self._options.market) for which in "AB")
        live = self._train(f"{self._name}/live", a.rows["train"], self._untouched(), (a, b))
        first = self._train(self._of("night-1"), a.rows["train"], self._night(live), (a, b))
        for name, share in left.items():
            if share is not None:
                portion, _, single = share.partition("-")
                size = round(float(portion) * len(b.rows["train"]))
                stretch = 1 if single else STRETCH
                older = replayed(a.rows["train"], size, seed=self._seed, stretch=stretch)
                rows = b.rows["train"] + older
                config = self._night(first, self._options.settings)
                self._train(name, rows, config, (a, b))

    def _of(self, what: str) -> str:
        return f"{self._name}/{self._options.preset}/s{self._seed}/{what}"

    def _train(
        self, name: str, rows: Sequence[Row], config: RunConfig, domains: tuple[Domain, Domain]
    ) -> Path:
        """The bundle of one night, with its line written."""
        run = name if "night-2" in name else name.replace(*_SAME_A)
        output: Path = self._options.work / "runs" / run.replace("/", "-")
        bundle = output / "bundle"
        cost: dict[str, Any] = {}
        if not bundle.exists():
            print(f"{name}: {len(rows)} crops", file=sys.stderr, flush=True)
            manifest = _write(self._root / f"{output.name}.csv", rows, _COLUMNS[:-1])
            resumed = (output / "checkpoint.pt").exists()
            begun = time.perf_counter()
            adapt(manifest, output, config, resume=resumed, cache=self._options.work / "cache")
            if not resumed:
                cost = {"wall_s": round(time.perf_counter() - begun, 1)}
        if name in self._done:
            return bundle
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        line: Line = {
            "name": name,
            **{domain.name: self._score(bundle, domain) for domain in domains},
            "crops": {domain.name: _common(rows, domain.rows["train"]) for domain in domains},
            **cost,
            "clusters": [epoch["clusters"] for epoch in summary["epochs"]],
            "outliers": [epoch["outliers"] for epoch in summary["epochs"]],
            "iterations": [epoch["iterations"] for epoch in summary["epochs"]],
            "machine": describe(),
        }
        self._options.results.parent.mkdir(parents=True, exist_ok=True)
        with self._options.results.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        self._done.add(name)
        return bundle

    def _untouched(self) -> RunConfig:
        network = {"backbone": "osnet_x0_25", "init": str(self._options.osnet)}
        return resolve(options={**network, "height": 128, "width": 64, "epochs": 0})

    def _night(self, start: Path, settings: Sequence[str] = ()) -> RunConfig:
        most = f"max_iterations={self._options.iterations}"
        return night_config(
            open_bundle(start, golden=False),
            start,
            file=None,
            assignments=["pad=5", "precision=amp", most, *settings],
            options={"preset": self._options.preset, "seed": self._seed},
        )

    def _score(self, bundle: Path, domain: Domain) -> dict[str, float]:
        query, gallery = (
            _write(self._root / f"{domain.name}-{split}.csv", domain.rows[split])
            for split in ("query", "gallery")
        )
        metrics = evaluate_bundle(open_bundle(bundle, golden=False), query, gallery).metrics
        return {"map": round(metrics.map, 4), "rank1": round(metrics.rank(1), 4)}


def replayed(older: Sequence[Row], size: int, *, seed: int, stretch: int) -> list[Row]:
    """So many crops of a past, drawn as a night's are: its shares, the service's sample."""
    stored = Counter(row["camera"] for row in older)
    wanted = quota({"": size}, stored, most=0, replay=1.0)
    chosen: list[Row] = []
    for camera, count in wanted.replay.items():
        if count:
            # A row's number is its place in the order of ingest; the table's count from 1.
            rows = [number for number, row in enumerate(older, 1) if row["camera"] == camera]
            sample = Sample(count, seed, stretch=stretch)
            sample.offer(np.array(rows, dtype=np.int64))
            chosen += [older[number - 1] for number in sample.rows()]
    return chosen


def _common(rows: Sequence[Row], whole: Sequence[Row]) -> int:
    known = {row["path"] for row in whole}
    return sum(row["path"] in known for row in rows)


def _domain(root: Path, sequence: str, which: str, market: Path | None) -> Domain:
    """A or B of a sequence, its images under ``root`` (linked, or copied)."""
    if sequence == "market" or (sequence == "market-simulated" and which == "A"):
        assert market is not None
        return Domain(which, market_rows(root, which, market))
    return Domain(which, _simulated(root, which))


def market_rows(root: Path, which: str, market: Path) -> dict[str, list[Row]]:
    cameras = "123" if which == "A" else "456"
    found: dict[str, list[tuple[str, str, Row]]] = {split: [] for split in SPLITS}
    for split, folder in _MARKET.items():
        for path in sorted((market / folder).glob("*.jpg")):
            match = _MARKET_NAME.match(path.name)
            if match is None or match[2] not in cameras:
                continue
            inside = Path(which, split, path.name)
            _link(path, root / inside)
            row = {"path": inside.as_posix(), "camera": f"c{match[2]}", "identity": match[1]}
            found[split].append((match[3], match[4], row))
    return {split: [row for *_, row in sorted(rows, key=_moment)] for split, rows in found.items()}


def _moment(crop: tuple[str, str, Row]) -> tuple[int, int, str]:
    """Sequence, frame, name: the order of capture, as near as the names tell."""
    return int(crop[0]), int(crop[1]), crop[2]["path"]


def _simulated(root: Path, which: str) -> dict[str, list[Row]]:
    site = root / which
    if not site.is_dir():
        # A's cameras are alike; B's lie twice as far apart as a usual site's.
        look = ("--seed", "11", "--camera-spread", "0.5") if which == "A" else (
            "--seed", "12", "--camera-spread", "2")  # fmt: skip
        subprocess.run(
            [sys.executable, "-m", "resight", "simulate", "--output", str(site), *_SITE, *look],
            check=True,
        )
    return {
        split: sorted(_site_rows(site / f"{split}.csv", which), key=lambda row: row["capture_time"])
        for split in SPLITS
    }


def _site_rows(manifest: Path, which: str) -> Iterator[Row]:
    with manifest.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            # Both sites call their cameras c1 to c4, and their people and tracks alike.
            yield {name: row[name] for name in _COLUMNS} | {
                "path": f"{which}/{row['path']}",
                "camera": f"{which}-{row['camera']}",
                "track": f"{which}-{row['track']}",
            }


def _link(source: Path, target: Path) -> None:
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write(manifest: Path, rows: Sequence[Row], columns: Sequence[str] = _COLUMNS) -> Path:
    with manifest.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return manifest


def _markdown(lines: Sequence[Line]) -> str:
    rows = ["| encoder | mAP on A | mAP on B | crops of A, B |", "|---|---|---|---|"]
    for line in lines:
        crops = line["crops"]
        rows.append(
            f"| {line['name']} | {100 * line['A']['map']:.1f} | {100 * line['B']['map']:.1f}"
            f" | {crops['A']}, {crops['B']} |"
        )
    return "\n".join(rows)
