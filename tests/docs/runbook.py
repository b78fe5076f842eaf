"""Alerts of the rules, their entries in the runbook, and the queries that pages show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adapt.nightly.outcome import NightOutcome, metrics_of
from adapt.nightly.state import Memory
from tests.docs.pages import DOCS, ROOT, blocks, spans

__all__ = ["Alert", "alerts", "entries", "known_metrics", "named_metrics", "queries"]

RULES = ROOT / "deploy" / "prometheus"
RUNBOOK = DOCS / "operations.md"
# Written by Prometheus itself, by its client library, or by the machine's own exporters.
_NOT_OURS = re.compile(r"up|ALERTS\w*|process_\w+|python_\w+|container_\w+|node_\w+|kube_\w+")


@dataclass(frozen=True)
class Alert:
    """A rule that alerts."""

    name: str
    severity: str
    runbook_url: str


def rules() -> Iterator[dict[str, Any]]:
    """All rules of deploy/prometheus."""
    for path in sorted(RULES.glob("*.rules.yml")):
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> list[Alert]:
    """Those that alert."""
    return [
        Alert(rule["alert"], rule["labels"]["severity"], rule["annotations"]["runbook_url"])
        for rule in rules()
        if "alert" in rule
    ]


def entries() -> dict[str, str]:
    """Text of each entry of the runbook, by its heading."""
    text = RUNBOOK.read_text(encoding="utf-8").partition("\n## When an alert fires\n")[2]
    text = text.partition("\n## ")[0]
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def queries(page: Path) -> Iterator[tuple[int, str]]:
    """What a page gives to be asked of Prometheus: spans with a metric in them, promql blocks."""
    for line, span in spans(page):
        if re.search(r"\bresight[_:][a-z_:0-9]+|^\w*\(?up\{", span) and _is_query(span):
            yield line, span
    for block in blocks(page):
        if block.language == "promql":
            for offset, text in enumerate(block.text.splitlines()):
                if text.strip():
                    yield block.line + offset, text.strip()


def named_metrics(text: str) -> set[str]:
    """Names of ours in a query or in running text."""
    return set(
        re.findall(r"(?<![\w./:-])resight[_:][a-z][a-z0-9_:]*[a-z0-9](?![\w/.*…-]*[(/…*])", text)
    )


def known_metrics() -> frozenset[str]:
    """All names that a scrape of the service, a night or a recording rule can give."""
    found = {rule["record"] for rule in rules() if "record" in rule}
    for half in ("service", "adapt"):
        for path in (ROOT / half).rglob("*.py"):
            found |= set(re.findall(r"\"(resight_[a-z0-9_]+)", path.read_text(encoding="utf-8")))
    found |= {metric.name for metric in metrics_of(_night(), Memory(last_success=1.0), now=2.0)}
    endings = ("", "_total", "_bucket", "_sum", "_count", "_info")
    return frozenset(name + ending for name in found for ending in endings)


def _night() -> NightOutcome:
    """One that reached everything, so that all its metrics are there."""
    epoch = {"clusters": 1, "outliers": 1, "loss": 1.0}
    return NightOutcome(
        "default",
        crops={"new": 1},
        seconds={"total": 1.0},
        summary={"epochs": [epoch]},
        verdict={"score": 1.0, "baseline_score": 1.0},
    )


def _is_query(span: str) -> bool:
    """Not a command line, an address or a sentence."""
    return not re.match(r"[A-Z_]+=|resight |curl |psql|GET |POST ", span)
