"""Where models stood at a time, from where they stand now and what was done with them since.

Changes are undone, the newest first. A promotion made the shadow live and the live one the
previous; a rollback made the live and the previous change places; a retired model was what its own
change before that had made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.model import ModelState

__all__ = ["ModelEvent", "states_before"]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """A change of a model: ``stage``, ``promote``, ``rollback`` or ``retire``."""

    model_row: int
    kind: str
    time: datetime


def states_before(
    end: datetime,
    *,
    now: Mapping[int, ModelState],
    registered: frozenset[int],
    events: Sequence[ModelEvent],
) -> dict[int, ModelState]:
    """Where the models of one gallery stood before a time.

    Args:
        end: The time; what was changed then or later is undone.
        now: Where each stands, by its row.
        registered: Those that were candidates once; others were served from the first.
        events: Everything done with them, oldest first.
    """
    states = dict(now)
    for place in range(len(events) - 1, -1, -1):
        event = events[place]
        if event.time < end:
            break
        if event.kind in ("promote", "rollback"):
            left = next(
                (row for row, state in states.items() if state is ModelState.PREVIOUS), None
            )
            if left is not None:
                states[left] = ModelState.LIVE
        if event.model_row in states:
            states[event.model_row] = _before(event, events[:place], registered)
    return states


def _before(
    event: ModelEvent, earlier: Sequence[ModelEvent], registered: frozenset[int]
) -> ModelState:
    if event.kind == "stage":
        return ModelState.CANDIDATE
    if event.kind == "promote":
        return ModelState.SHADOW
    if event.kind == "rollback":
        return ModelState.PREVIOUS
    for other in reversed(earlier):
        if other.model_row == event.model_row:
            return ModelState.SHADOW if other.kind == "stage" else ModelState.PREVIOUS
    known = event.model_row in registered
    return ModelState.CANDIDATE if known else ModelState.PREVIOUS
