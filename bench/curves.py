"""Pictures and the ablation table of docs/benchmarks.md, from the results that are kept as data.

::

    python -m bench curves [--output docs/images]

``market-epochs.svg`` shows mAP after each epoch that was measured, ``market-ablation.svg`` and the
table on standard output what each method gains or loses where one of its parts is off.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bench.experiment import Line, lines_of

_HERE = Path(__file__).parent
_RESULTS = _HERE.parent / "docs" / "results"
_IMAGES = _HERE.parent / "docs" / "images"
# What one part more or less is compared with.
_ABLATION = re.compile(r"128/osnet/(?P<method>[a-z-]+)/(?P<part>[a-z][a-z./\d-]*)/s1")
# Others stand in the table of all runs: longer ones, other seeds, other questions.
_NO_PART = re.compile(r"night|no-cameras$")
_LEAST_EPOCHS = 3


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench curves", description=__doc__)
    parser.add_argument("--results", type=Path, default=_RESULTS)
    parser.add_argument("--output", type=Path, default=_IMAGES)
    options = parser.parse_args(argv)
    runs = {line["name"]: line for line in lines_of(options.results / "market.jsonl")}
    parts = _parts(runs)
    print(_markdown(parts, runs))
    mpl.rcParams["svg.hashsalt"] = "resight"
    _save(_ablation(parts), options.output / "market-ablation.svg")
    measured = [
        line
        for name in ("gate_signals.jsonl", "gate.jsonl")
        for line in lines_of(options.results / name)
    ]
    _save(_epochs(measured, runs), options.output / "market-epochs.svg")
    return 0


def _parts(runs: dict[str, Line]) -> dict[str, list[tuple[str, float, float]]]:
    """(part, mAP on the dev half, on the validation split) less the whole method's, by method."""
    found: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for name, line in runs.items():
        match = _ABLATION.fullmatch(name)
        whole = runs.get(f"128/osnet/{match['method']}/s1") if match else None
        if match is None or whole is None or _NO_PART.search(match["part"]):
            continue
        gains = [
            100 * (line[split]["map"] - whole[split]["map"]) for split in ("dev", "validation")
        ]
        found[match["method"]].append((match["part"], gains[0], gains[1]))
    return {method: sorted(rows, key=lambda row: row[1]) for method, rows in sorted(found.items())}


def _markdown(parts: dict[str, list[tuple[str, float, float]]], runs: dict[str, Line]) -> str:
    rows = ["| method (mAP) | changed | mAP | validation |", "|---|---|---|---|"]
    for method, changes in parts.items():
        whole = 100 * runs[f"128/osnet/{method}/s1"]["dev"]["map"]
        rows += [
            f"| {method} ({whole:.1f}) | {part} | {dev:+.1f} | {chosen:+.1f} |"
            for part, dev, chosen in changes
        ]
    return "\n".join(rows)


def _ablation(parts: dict[str, list[tuple[str, float, float]]]) -> Figure:
    heights = [len(rows) for rows in parts.values()] or [1]
    figure = Figure(figsize=(8, 0.28 * sum(heights) + 0.8 * len(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)
    for ax, (method, rows) in zip(axes[:, 0], parts.items(), strict=False):
        _bars(ax, method, rows)
    axes[-1, 0].set_xlabel("mAP against the whole method, Market-1501 dev half, 128x64, one seed")
    return figure


def _bars(ax: Axes, method: str, rows: list[tuple[str, float, float]]) -> None:
    gains = [row[1] for row in rows]
    colours = ["tab:red" if gain < 0 else "tab:blue" for gain in gains]
    ax.barh([row[0] for row in rows], gains, color=colours)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_title(method, loc="left", fontsize="medium")


def _epochs(measured: Sequence[Line], runs: dict[str, Line]) -> Figure:
    """mAP by epoch of every run of the table of which epochs were kept."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    courses: dict[str, dict[int, float]] = defaultdict(dict)
    for line in measured:
        run, _, epoch = str(line["name"]).partition("@")
        if epoch and line.get("map") is not None:
            courses[run][int(epoch)] = 100 * line["map"]
    panels = zip(("128", "256"), figure.subplots(1, 2), strict=True)
    by_folder = {line["run"]: line for line in runs.values() if "run" in line}
    for size, ax in panels:
        for run, course in sorted(courses.items()):
            whole = by_folder.get(run)
            if whole is None or not whole["name"].startswith(f"{size}/osnet"):
                continue
            course[len(whole["clusters"])] = 100 * whole["dev"]["map"]
            epochs = sorted(course)
            if len(epochs) < _LEAST_EPOCHS:
                continue
            label = whole["name"].removeprefix(f"{size}/osnet/")
            ax.plot(epochs, [course[epoch] for epoch in epochs], marker="o", label=label)
        ax.set(title=f"{size}x{int(size) // 2}", xlabel="epoch", ylabel="mAP, dev half", ylim=0)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if ax.lines:
            ax.legend(fontsize="small")
    return figure


def _save(figure: Figure, path: Path) -> None:
    FigureCanvasSVG(figure)
    figure.savefig(path, format="svg", metadata={"Date": None})
