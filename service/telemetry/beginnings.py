"""Counters of a gallery that are there, at 0, before anything is counted.

To Prometheus the first value of a series is where it begins and no increase: what a process counts
once, such as one bulk load or one night, would otherwise be seen by nobody.
"""

from __future__ import annotations

from service.telemetry.adaptation import ADAPTATION_CROPS, ADAPTATION_RUNS
from service.telemetry.galleries import STORED
from service.telemetry.governance import RETENTION_DROPPED

__all__ = ["gallery_begins"]

_OUTCOMES = ("succeeded", "refused", "skipped", "failed", "abandoned")
_USES = ("new", "replay")


def gallery_begins(gallery: str) -> None:
    """Show the counters of a gallery that this process serves; once more does no harm."""
    STORED.labels(gallery)
    RETENTION_DROPPED.labels(gallery)
    for outcome in _OUTCOMES:
        ADAPTATION_RUNS.labels(gallery, outcome)
    for use in _USES:
        ADAPTATION_CROPS.labels(gallery, use)
