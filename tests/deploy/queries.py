"""PromQL in documents, rules and boards: parsed by Prometheus, and held against the registry."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import service.gpu.fallbacks  # noqa: F401 -- registers a metric that a service without a GPU lacks
from service.telemetry import REGISTRY

PROMTOOL = shutil.which("promtool") or ""
needs_promtool = pytest.mark.skipif(
    not PROMTOOL, reason="promtool (Debian: prometheus) is not installed"
)

# Given by Prometheus when it scrapes.
_TARGET = {"job", "instance"}
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("_total",), "gauge": ("",)}
_SELECTOR = re.compile(r"\b(resight_\w+)(?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Registered:
    """A metric of the code."""

    kind: str
    labels: frozenset[str]


def registered() -> dict[str, Registered]:
    """Every metric of ours by the name that is scraped, counters with `_total`."""
    found = {}
    collectors: set[Any] = set(REGISTRY._collector_to_names)
    for collector in collectors:
        labels = getattr(collector, "_labelnames", None)
        if labels is not None:
            for metric in collector.describe():
                name = metric.name + ("_total" if metric.type == "counter" else "")
                found[name] = Registered(metric.type, frozenset(labels))
    return found


def series() -> dict[str, frozenset[str]]:
    """Every series of ours, `le` included, with its labels."""
    found = {}
    for name, metric in registered().items():
        base = name.removesuffix("_total") if metric.kind == "counter" else name
        for suffix in _SUFFIXES[metric.kind]:
            extra = {"le"} if suffix == "_bucket" else set()
            found[base + suffix] = metric.labels | extra | _TARGET
    return found


def unknown(queries: Iterable[str]) -> list[str]:
    """Series and labels that queries name and the code does not have."""
    known = series()
    wrong = []
    for query in queries:
        for name, matchers in _SELECTOR.findall(query):
            if name not in known:
                wrong.append(f"{name} in {query}")
                continue
            labels = re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', matchers)
            wrong += [f"{name}{{{label}}} in {query}" for label in {*labels} - known[name]]
    return wrong


def parsed(queries: Iterable[str], folder: Path) -> str:
    """What promtool says of queries that it cannot parse; empty when it can parse all."""
    rules = [
        {"record": f"check:query{number}", "expr": query} for number, query in enumerate(queries)
    ]
    assert rules
    path = folder / "queries.rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True, timeout=240
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
