"""What a report tells besides the audit: cameras, models, runs and erasures as they are stored; of
a gallery and a time those alone that belong to them.

What happened is told where it did within the time: an erasure from when it was confirmed to when it
was done (asked for or cancelled, when nobody confirmed it), a run from its start to its end, a
change of a model when it was made. What holds is told as of the end: retention and models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from service.audit.entry import stamped
from service.audit.past_retention import CHANGED, PastRetention
from service.audit.reading import Source
from service.audit.span import Span
from service.audit.tables import Table
from service.catalog.audit import Selection

__all__ = [
    "CAMERAS",
    "ERASURES",
    "IMAGES",
    "MODELS",
    "MODEL_CHANGES",
    "RUNS",
    "Register",
    "Registers",
    "cell",
    "erased_within",
    "past_retention",
]


class Register:
    """The name, title and columns of a table."""

    def __init__(self, name: str, title: str, *columns: str) -> None:
        self.name = name
        self.title = title
        self.columns = columns

    def table(self, rows: Sequence[Sequence[Any]], note: str = "") -> Table:
        """With these rows."""
        texts = [[cell(value) for value in row] for row in rows]
        return Table(self.name, self.title, self.columns, texts, note)


CAMERAS = Register(
    "camera_retention", "Cameras with a retention of their own",
    "gallery", "camera", "display name", "retention days",
)  # fmt: skip
MODELS = Register(
    "models", "Models and the verdicts on them",
    "gallery", "model", "state", "known since", "method", "parent", "gate", "score", "why",
)  # fmt: skip
MODEL_CHANGES = Register(
    "model_changes", "Changes of models",
    "time", "gallery", "model", "change", "by", "reason",
)  # fmt: skip
RUNS = Register(
    "adaptation_runs", "Adaptation runs",
    "gallery", "run", "state", "holder", "start", "end", "model", "new crops", "older crops",
    "reason",
)  # fmt: skip
ERASURES = Register(
    "erasures", "Erasures",
    "gallery", "erasure", "state", "reason", "asked by", "confirmed by", "asked", "confirmed",
    "complete", "to go", "removed", "subject",
)  # fmt: skip
IMAGES = Register(
    "images_not_removed", "Images of deleted crops that wait for their removal",
    "gallery", "images", "oldest since",
)  # fmt: skip


class Registers(Protocol):
    """Where they are read."""

    def tables(self, galleries: Sequence[str], wanted: Selection) -> Iterator[Table]:
        """One table a register; one that may not be read says so.

        Args:
            galleries: Those there are, as far as the audit knows.
            wanted: Of which gallery (all when empty) and time.
        """
        ...


def erased_within(
    span: Span, asked: datetime, confirmed: datetime | None, ended: datetime | None
) -> bool:
    """Whether an erasure belongs to a time; ``ended``: done or cancelled."""
    if confirmed is not None:
        return span.meets(confirmed, ended)
    return span.holds(asked) or span.holds(ended)


def past_retention(source: Source, wanted: Selection) -> PastRetention | None:
    """What the audit knows of retention at the end of the time; None when that has no end."""
    if wanted.end_time is None:
        return None
    past = PastRetention(wanted.end_time)
    past.add_all(source.entries(Selection(gallery=wanted.gallery, action=CHANGED)))
    return past


def cell(value: Any) -> str:
    """A value as a report shows it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return stamped(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | dict):
        return "; ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)
    return str(value)
