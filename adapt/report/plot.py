"""The summary as one picture: clusters and outliers, largest cluster, loss, time."""

from __future__ import annotations

import io

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adapt.report.summary import RunSummary

__all__ = ["draw"]


def draw(summary: RunSummary) -> bytes:
    """PNG of the run's course by epoch."""
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)  # draws without a display
    axes = figure.subplots(2, 2)
    _clusters(axes[0, 0], summary)
    _line(axes[0, 1], summary, "loss", "mean loss")
    _line(axes[1, 0], summary, "largest", "crops in the largest cluster")
    _seconds(axes[1, 1], summary)
    figure.suptitle(f"{summary.method}, {summary.crops.get('usable', 0)} crops without labels")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _epochs(axes: Axes, summary: RunSummary) -> list[int]:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not summary.epochs:
        axes.text(0.5, 0.5, "no epochs", ha="center", transform=axes.transAxes)
    return [record.epoch for record in summary.epochs]


def _clusters(axes: Axes, summary: RunSummary) -> None:
    epochs = _epochs(axes, summary)
    axes.plot(epochs, [r.clusters for r in summary.epochs], marker="o", label="clusters")
    axes.plot(epochs, [r.outliers for r in summary.epochs], marker="s", label="crops in none")
    axes.set_ylim(bottom=0)
    axes.legend()


def _line(axes: Axes, summary: RunSummary, name: str, label: str) -> None:
    epochs = _epochs(axes, summary)
    axes.plot(epochs, [getattr(record, name) for record in summary.epochs], marker="o")
    axes.set_ylabel(label)


def _seconds(axes: Axes, summary: RunSummary) -> None:
    epochs = _epochs(axes, summary)
    base = [0.0] * len(epochs)
    for phase in ("extract", "cluster", "train"):
        heights = [record.seconds.get(phase, 0.0) for record in summary.epochs]
        axes.bar(epochs, heights, bottom=base, label=phase)
        base = [low + height for low, height in zip(base, heights, strict=True)]
    axes.set_ylabel("seconds")
    axes.legend()
