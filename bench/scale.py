"""A model of clustering's time and memory, fitted to measured runs and held against them.

    python -m bench scale --runs docs/results/scale.jsonl

Time on the cores of the runs, in seconds, for N rows of D dimensions, k1 neighbours, E non-zeros a
row of the sparse encodings, C = 4 sqrt(N) cells, p of them looked into::

    exact kNN   = a N^2 D + b N^2 + c N k1
    cells       = d D (2 N C + p N^2 / C) + e D N p     centres and members; rows fetched
    rounds      = f D N log2(N)                         of refinement
    lists       = g N + h D N                           float64 order, measured recall
    beyond kNN  = (i k1^2 + j E^2) N log2(N) + l D E N  sets, common non-zeros; products

N log2 N stands for N steps whose memory lies further away the more there is. Bytes::

    peak = interpreter + features + N (12 k1 + 24 E + 24 P + 60)

for k1 neighbours a list (int32, float64), E entries (int32, float64) and their transpose, and P
pairs within the radius (each twice in the graph and once before, int32, float32).

Coefficients are non-negative least squares of the relative error. Runs above ``--held-out`` rows
take no part in the fit and are predicted by it; the table to 10 million is by the fit to all runs.
p grows with N as a power fitted to the approximate runs of the D of the largest: a property of
these data, and the weakest part of the model.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Run = dict[str, Any]

_LIST_BYTES = 12
_ENTRY_BYTES = 24
_PAIR_BYTES = 24
_ROW_BYTES = 60


@dataclass(frozen=True)
class Model:
    """Coefficients of the module's equations; seconds."""

    exact: NDArray[np.float64]
    cells: NDArray[np.float64]
    rounds: NDArray[np.float64]
    lists: NDArray[np.float64]
    beyond: NDArray[np.float64]
    near: NDArray[np.float64]
    interpreter: float

    @classmethod
    def fitted(cls, runs: Sequence[Run]) -> Model:
        """To ``runs``."""
        exact = [run for run in runs if "cells" not in run]
        by_cells = [run for run in runs if "cells" in run]
        widest = max(by_cells, key=lambda run: int(run["rows"]))["dimension"]
        alike = [run for run in by_cells if run["dimension"] == widest]
        return cls(
            exact=_least(exact, _exact_terms, _knn),
            cells=_least(by_cells, _cell_terms, lambda run: run["search_seconds"]["cells"]),
            rounds=_least(by_cells, _round_terms, lambda run: run["search_seconds"]["rounds"]),
            lists=_least(by_cells, _list_terms, _rest),
            beyond=_least(runs, _beyond_terms, lambda run: run["beyond_knn_s"]),
            near=np.polyfit(
                [math.log(run["rows"]) for run in alike],
                [math.log(run["looked_into"]) for run in alike],
                1,
            ),
            interpreter=float(
                np.median([run["peak_above_features_mb"] * 1e6 - _bytes(run) for run in runs])
            ),
        )

    def looked_into(self, rows: int) -> float:
        """p."""
        slope, offset = (float(value) for value in self.near)
        return float(math.exp(offset + slope * math.log(rows)))

    def knn(self, run: Run) -> float:
        """Seconds of the neighbour search."""
        if "cells" not in run:
            return _sum(self.exact, _exact_terms(run))
        near = run.get("looked_into") or self.looked_into(run["rows"])
        return (
            _sum(self.cells, _cell_terms({**run, "looked_into": near}))
            + _sum(self.rounds, _round_terms(run))
            + _sum(self.lists, _list_terms(run))
        )

    def after(self, run: Run) -> float:
        """Seconds beyond the neighbour search."""
        return _sum(self.beyond, _beyond_terms(run))

    def megabytes(self, run: Run) -> float:
        """Peak above the features."""
        return (self.interpreter + _bytes(run)) / 1e6


def _exact_terms(run: Run) -> list[float]:
    rows = run["rows"]
    return [rows**2 * run["dimension"], rows**2, rows * run["settings"]["k1"]]


def _cell_terms(run: Run) -> list[float]:
    rows, dimension, near = run["rows"], run["dimension"], run["looked_into"]
    cells = 4 * math.sqrt(rows)
    return [dimension * (2 * rows * cells + near * rows**2 / cells), dimension * rows * near]


def _round_terms(run: Run) -> list[float]:
    return [run["dimension"] * run["rows"] * math.log2(run["rows"])]


def _list_terms(run: Run) -> list[float]:
    return [run["rows"], run["dimension"] * run["rows"]]


def _beyond_terms(run: Run) -> list[float]:
    rows, entries = run["rows"], run["entries_a_row"]
    far = rows * math.log2(rows)
    return [
        far * run["settings"]["k1"] ** 2,
        far * entries**2,
        run["dimension"] * entries * rows,
    ]


def _bytes(run: Run) -> float:
    each = (
        _LIST_BYTES * run["settings"]["k1"]
        + _ENTRY_BYTES * run["entries_a_row"]
        + _PAIR_BYTES * run["pairs_a_row"]
        + _ROW_BYTES
    )
    return float(run["rows"] * each)


def _knn(run: Run) -> float:
    return float(run["seconds"]["neighbours"])


def _rest(run: Run) -> float:
    return _knn(run) - float(sum(run["search_seconds"].values()))


def _least(
    runs: Sequence[Run], terms: Callable[[Run], list[float]], of: Callable[[Run], float]
) -> NDArray[np.float64]:
    seconds = np.array([of(run) for run in runs])
    relative = np.array([terms(run) for run in runs], dtype=np.float64) / seconds[:, None]
    scale = relative.max(axis=0)
    found: NDArray[np.float64] = nnls(relative / scale, np.ones(len(seconds)))[0] / scale
    return found


def _sum(coefficients: NDArray[np.float64], terms: list[float]) -> float:
    return float(coefficients @ np.array(terms))


def main(argv: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench scale")
    parser.add_argument("--runs", type=Path, default=Path("docs/results/scale.jsonl"))
    parser.add_argument("--held-out", type=int, default=400_000, help="rows; larger runs are")
    options = parser.parse_args(argv)
    runs = [json.loads(line) for line in options.runs.read_text().splitlines() if line]
    runs.sort(key=lambda run: ("cells" in run, run["dimension"], run["rows"]))
    below = Model.fitted([run for run in runs if run["rows"] <= options.held_out])
    print(
        "| rows x D | k1 | E | search | kNN, s | model | beyond, s | model"
        " | above the features, MB | model |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        held = " *" if run["rows"] > options.held_out else ""
        print(
            f"| {run['rows']:,} x {run['dimension']}{held}"
            f" | {run['settings']['k1']} | {run['entries_a_row']:.0f} | {_search(run)}"
            f" | {_knn(run):.1f} | {below.knn(run):.1f}"
            f" | {run['beyond_knn_s']:.2f} | {below.after(run):.2f}"
            f" | {run['peak_above_features_mb']:,} | {below.megabytes(run):,.0f} |"
        )
    model = Model.fitted(runs)
    print()
    print("| rows x D | search | kNN | beyond | features, GB | above, GB |")
    print("|---|---|---|---|---|---|")
    for rows in (100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000):
        for dimension, approximate in ((128, True), (128, False), (2048, False)):
            if dimension > 128 and rows > 1_000_000:
                continue
            run = _imagined(runs, rows, dimension, approximate)
            print(
                f"| {rows:,} x {dimension} | {_search(run, model)}"
                f" | {_spell(model.knn(run))} | {_spell(model.after(run))}"
                f" | {rows * dimension * 4e-9:.1f} | {model.megabytes(run) / 1e3:.1f} |"
            )
    print()
    named = zip(
        "abcdefghijl",
        np.concatenate([model.exact, model.cells, model.rounds, model.lists, model.beyond]),
        strict=True,
    )
    print(", ".join(f"{name} {value:.3g}" for name, value in named), end=", ")
    print(
        f"p = {math.exp(model.near[1]):.3g} N^{model.near[0]:.3g},"
        f" interpreter {model.interpreter / 1e6:.0f} MB"
    )
    return 0


def _imagined(runs: Sequence[Run], rows: int, dimension: int, approximate: bool) -> Run:
    """A run that was not made, its entries and pairs those of the largest made with that D."""
    alike = [r for r in runs if r["dimension"] == dimension]
    like = max(alike, key=lambda r: int(r["rows"]))
    run = {
        "rows": rows,
        "dimension": dimension,
        **{key: like[key] for key in ("settings", "entries_a_row", "pairs_a_row")},
    }
    return {**run, "cells": None} if approximate else run


def _search(run: Run, model: Model | None = None) -> str:
    if "cells" not in run:
        return "exact"
    near = run["looked_into"] if model is None else model.looked_into(run["rows"])
    recall = "" if model else f", recall {run['neighbour_recall']:.3f}"
    return f"p = {near:.0f}{recall}"


def _spell(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
