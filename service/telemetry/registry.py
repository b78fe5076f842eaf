"""The registry of this process, the buckets histograms share, and the text that is scraped."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

__all__ = ["BATCHES", "OPENMETRICS", "REGISTRY", "ROWS", "SECONDS", "SHARES", "TEXT", "exposition"]

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

# A second series for every counter, which nothing of ours reads.
disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

# Doubling from 0.1 ms to 13 s: one decision of latency is never worth less than a factor of two.
SECONDS = tuple(0.0001 * 2**step for step in range(18))
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ROWS = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def exposition(accept: str = "") -> tuple[bytes, str]:
    """The registry and its content type: OpenMetrics, which has the exemplars, for who accepts it,
    else the Prometheus text format.
    """
    if "application/openmetrics-text" in accept:
        return openmetrics(REGISTRY), OPENMETRICS  # type: ignore[no-untyped-call]
    return generate_latest(REGISTRY), TEXT
