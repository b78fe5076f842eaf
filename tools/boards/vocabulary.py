"""What boards are made of: panels, rows of them, and the queries that come again and again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["BAD_AT_1", "JOB", "OURS", "Board", "Panel", "newest", "panel", "quantile", "rate"]

JOB = 'job=~"$job"'
OURS = f'{JOB},gallery=~"$gallery"'
BAD_AT_1 = ((0.0, "green"), (1.0, "red"))


@dataclass(frozen=True)
class Panel:
    """One picture. ``kind``: timeseries or stat; ``unit`` as Grafana names it."""

    title: str
    unit: str
    says: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    thresholds: tuple[tuple[float, str], ...] = ()
    exemplars: bool = False


@dataclass(frozen=True)
class Board:
    """One page."""

    uid: str
    title: str
    says: str
    rows: dict[str, tuple[Panel, ...]]
    by_gallery: bool = False
    since: str = "now-6h"
    tags: tuple[str, ...] = field(default=("resight",))


def panel(title: str, unit: str, says: str, *queries: str | tuple[str, str], **more: Any) -> Panel:
    """A panel; a query without a legend shows every label."""
    pairs = tuple((query, "") if isinstance(query, str) else query for query in queries)
    return Panel(title, unit, says, pairs, **more)


def quantile(share: float, name: str, by: str, selector: str = JOB) -> str:
    """A quantile of a histogram over five minutes."""
    labels = ", ".join(part for part in (by, "le") if part)
    return f"histogram_quantile({share}, sum by ({labels}) (rate({name}_bucket{{{selector}}}[5m])))"


def rate(name: str, by: str, selector: str = JOB) -> tuple[str, str]:
    """Events a second, summed."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return f"sum by ({by}) (rate({name}{{{selector}}}[5m]))", legend


def newest(name: str, by: str, selector: str = OURS) -> tuple[str, str]:
    """A gauge that every replica has alike."""
    legend = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(","))
    return f"max by ({by}) ({name}{{{selector}}})", legend
