"""The tables and plots of docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["markdown", "newest", "plots"]

Line = dict[str, Any]


def newest(results: Path) -> list[Line]:
    """The last line of each store and size."""
    found: dict[tuple[object, ...], Line] = {}
    for text in results.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        found[line["rows"], line["dimension"], line["contestant"]] = line
    return list(found.values())


def markdown(lines: Sequence[Line]) -> str:
    """A heading and three tables for each size."""
    parts = []
    for rows, dimension in sorted({(line["rows"], line["dimension"]) for line in lines}):
        chosen = [line for line in lines if (line["rows"], line["dimension"]) == (rows, dimension)]
        cores = chosen[0]["cores"]
        parts.append(f"### {rows:,} x {dimension}, {cores} cores\n")
        if not all(map(_absent, chosen)):
            parts += [_searches(chosen), _answers(chosen), _upkeep(chosen)]
        absent = [f"{line['contestant']}: {line['status']}" for line in chosen if _absent(line)]
        if absent:
            parts.append("Not in the tables: " + "; ".join(absent) + ".\n")
    return "\n".join(parts)


def plots(lines: Sequence[Line], folder: Path) -> None:
    """``peers-ROWS.svg``: milliseconds of a search by filter, and what share of the best rows it
    finds.
    """
    mpl.rcParams["svg.hashsalt"] = "resight"
    for rows in sorted({line["rows"] for line in lines}):
        chosen = [line for line in lines if line["rows"] == rows and not _absent(line)]
        if not chosen:
            continue
        names = [line["contestant"] for line in chosen]
        labels = list(chosen[0]["searches"])
        figure = Figure(figsize=(10, 1.2 + 0.55 * len(names)), layout="constrained")
        FigureCanvasSVG(figure)
        times, recalls = figure.subplots(1, 2, sharey=True)
        height = 0.8 / len(labels)
        for place, label in enumerate(labels):
            at = [number + place * height for number in range(len(names))]
            found = [line["searches"][label] for line in chosen]
            times.barh(at, [each["p50_ms"] for each in found], height, label=label)
            recalls.barh(at, [each["recall"] for each in found], height, label=label)
        times.set(xscale="log", xlabel="ms a search, median", title=f"{rows:,} rows")
        times.set_yticks([number + 0.4 for number in range(len(names))], names)
        times.invert_yaxis()
        recalls.set(xlabel="share of the ten best that is found", xlim=(0, 1.02))
        figure.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=6)
        path = folder / f"peers-{rows}.svg"
        figure.savefig(path, format="svg", metadata={"Date": None})


def _absent(line: Line) -> bool:
    return "searches" not in line


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _searches(lines: Sequence[Line]) -> str:
    labels = next((list(line["searches"]) for line in lines if not _absent(line)), [])
    return _table(
        ["p50 / p99 ms", *(f"filter: {label}" for label in labels)],
        (
            [line["contestant"], *(_latency(line["searches"][label]) for label in labels)]
            for line in lines
            if not _absent(line)
        ),
    )


def _latency(found: Line) -> str:
    # A hundredth of fewer queries is none.
    p99 = f" / {found['p99_ms']:.3g}" if found["queries"] >= 100 else ""
    return f"{found['p50_ms']:.3g}{p99}"


def _answers(lines: Sequence[Line]) -> str:
    labels = next((list(line["searches"]) for line in lines if not _absent(line)), [])
    return _table(
        ["recall@10 (rows returned, if not 10)", "filters by", *labels],
        (
            [
                line["contestant"],
                line["filtering"],
                *(_correct(line["searches"][label]) for label in labels),
            ]
            for line in lines
            if not _absent(line)
        ),
    )


def _correct(found: Line) -> str:
    text = f"{found['recall']:.3f}"
    if abs(found["returned"] - found["there_are"]) > 1e-9:
        text += f" (**{found['returned']:.1f} of {found['there_are']}**)"
    if found["outside_filter"]:
        text += f", {found['outside_filter']:.1f} repeated or forbidden"
    return text


def _upkeep(lines: Sequence[Line]) -> str:
    columns: dict[str, Callable[[Line], str]] = {
        "loaded rows/s": lambda line: f"{line['load_rows_per_s']:,.0f}",
        "bytes a row": lambda line: f"{line['bytes_per_row']:,.0f}",
        "upsert ms": lambda line: f"{line['upsert_p50_ms']:.3g}",
        "found at once": lambda line: f"{line['upserts_found']:.0%}",
        "delete ms": lambda line: f"{line['delete_p50_ms']:.3g}",
        "deleted still found": lambda line: f"{line['deleted_found']:.0%}",
        "close s": lambda line: f"{line['close_s']:.3g}",
        "restart s": lambda line: f"{line['restart_s']:.3g}",
        "upserts kept": lambda line: f"{line['upserts_kept']:.0%}",
        "deleted come back": lambda line: f"{line['deleted_come_back']:.0%}",
    }
    return _table(
        ["", *columns],
        (
            [line["contestant"], *(_cell(line, cell) for cell in columns.values())]
            for line in lines
            if not _absent(line)
        ),
    )


def _cell(line: Line, cell: Callable[[Line], str]) -> str:
    """Empty where the store has no such thing."""
    try:
        return cell(line)
    except KeyError:
        return ""
