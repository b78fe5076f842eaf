"""The registers of a report, read on the catalog."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Row, Select, func, select

from service.audit.past_models import ModelEvent, states_before
from service.audit.reading import CatalogAudit
from service.audit.registers import (
    CAMERAS,
    ERASURES,
    IMAGES,
    MODEL_CHANGES,
    MODELS,
    RUNS,
    erased_within,
    past_retention,
)
from service.audit.span import Span
from service.audit.tables import Table
from service.catalog.audit import Selection
from service.catalog.models import (
    adaptation_runs,
    blob_removals,
    cameras,
    erasures,
    galleries,
    model_bundles,
    model_events,
    models,
)
from service.domain.erasure import ErasureState
from service.domain.model import ModelState

__all__ = ["CatalogRegisters"]

_NAMED = galleries.c.name


class CatalogRegisters:
    """Of every gallery, unless one is wanted.

    Args:
        source: The audit of the same catalog.
    """

    def __init__(self, source: CatalogAudit) -> None:
        self._source = source

    def tables(self, _galleries: Sequence[str], wanted: Selection) -> Iterator[Table]:
        """Cameras with retention of their own, models, their changes, runs, erasures, images."""
        span = Span.of(wanted)
        yield self._cameras(wanted, span)
        changes = self._rows(
            select(
                model_events.c.create_time, _NAMED, models.c.version, model_events.c.kind,
                model_events.c.actor, model_events.c.reason, models.c.model_row,
            )
            .join(models, models.c.model_row == model_events.c.model_row)
            .join(galleries, galleries.c.gallery_row == model_events.c.gallery_row)
            .order_by(model_events.c.event_row),
            wanted,
        )  # fmt: skip
        yield self._models(wanted, span, changes)
        yield MODEL_CHANGES.table([row[:-1] for row in changes if span.holds(row.create_time)])
        yield self._runs(wanted, span)
        yield self._erasures(wanted, span)
        yield self._images(wanted, span)

    def _cameras(self, wanted: Selection, span: Span) -> Table:
        camera = cameras.c
        rows = self._rows(
            select(
                _NAMED, camera.camera_id, camera.display_name, camera.retention_days,
                camera.create_time,
            )
            .join(galleries, galleries.c.gallery_row == camera.gallery_row)
            .order_by(_NAMED, camera.camera_id),
            wanted,
        )  # fmt: skip
        past = past_retention(self._source, wanted)
        shown = []
        for row in rows:
            name, camera_id, display_name, days, create_time = tuple(row)
            own = days if past is None else past.days(name, camera_id, days)
            if own is not None and span.knows(create_time):
                shown.append((name, camera_id, display_name, own))
        return CAMERAS.table(shown)

    def _models(self, wanted: Selection, span: Span, changes: Sequence[Row[Any]]) -> Table:
        bundles = model_bundles.c
        rows = self._rows(
            select(
                _NAMED, models.c.version, models.c.state, models.c.create_time, bundles.method,
                bundles.parent_version, bundles.gate_outcome, bundles.gate_score,
                bundles.gate_reasons, models.c.model_row,
            )
            .join(galleries, galleries.c.gallery_row == models.c.gallery_row)
            .outerjoin(model_bundles, bundles.model_row == models.c.model_row)
            .order_by(_NAMED, models.c.model_row),
            wanted,
        )  # fmt: skip
        states = _states(rows, changes, span)
        return MODELS.table([
            (row.name, row.version, states[row.model_row].value, *row[3:-1])
            for row in rows
            if span.knows(row.create_time)
        ])  # fmt: skip

    def _runs(self, wanted: Selection, span: Span) -> Table:
        run = adaptation_runs.c
        rows = self._rows(
            select(
                _NAMED, run.run_id, run.state, run.holder, run.start_time, run.end_time,
                run.model_version, run.new_crops, run.replay_crops, run.reason,
            )
            .join(galleries, galleries.c.gallery_row == run.gallery_row)
            .order_by(_NAMED, run.run_row),
            wanted,
        )  # fmt: skip
        return RUNS.table([row for row in rows if span.meets(row.start_time, row.end_time)])

    def _erasures(self, wanted: Selection, span: Span) -> Table:
        gone = erasures.c
        rows = self._rows(
            select(
                _NAMED, gone.erasure_id, gone.state, gone.reason, gone.principal, gone.confirmer,
                gone.create_time, gone.confirm_time, gone.complete_time, gone.listed,
                gone.removed, gone.subject,
            )
            .join(galleries, galleries.c.gallery_row == gone.gallery_row)
            .where(gone.state != ErasureState.LISTING.value)
            .order_by(_NAMED, gone.erasure_row),
            wanted,
        )  # fmt: skip
        return ERASURES.table([
            row
            for row in rows
            if erased_within(span, row.create_time, row.confirm_time, row.complete_time)
        ])  # fmt: skip

    def _images(self, wanted: Selection, span: Span) -> Table:
        """Those that wait now: what was removed since the end of the time is not known."""
        key, since = blob_removals.c.blob_key, blob_removals.c.create_time
        # Not LIKE, in which a name's underscore is any character.
        of_gallery = func.substr(key, 1, func.length(_NAMED) + 1) == _NAMED + "/"
        waiting = select(_NAMED, func.count(), func.min(since)).join(galleries, of_gallery)
        if span.end is not None:
            waiting = waiting.where(since < span.end)
        return IMAGES.table(self._rows(waiting.group_by(_NAMED).order_by(_NAMED), wanted))

    def _rows(self, statement: Select[Any], wanted: Selection) -> Sequence[Row[Any]]:
        if wanted.gallery:
            statement = statement.where(galleries.c.name == wanted.gallery)
        return self._source.connection.execute(statement).all()


def _states(
    rows: Sequence[Row[Any]], changes: Sequence[Row[Any]], span: Span
) -> dict[int, ModelState]:
    """Where each model stood at the end of the time, by its row."""
    now = {row.model_row: ModelState(row.state) for row in rows}
    if span.end is None:
        return now
    of_gallery: dict[str, dict[int, ModelState]] = defaultdict(dict)
    for row in rows:
        of_gallery[row.name][row.model_row] = now[row.model_row]
    events: dict[str, list[ModelEvent]] = defaultdict(list)
    for each in changes:
        events[each.name].append(ModelEvent(each.model_row, each.kind, each.create_time))
    registered = frozenset(row.model_row for row in rows if row.method is not None)
    found: dict[int, ModelState] = {}
    for name, states in of_gallery.items():
        found |= states_before(span.end, now=states, registered=registered, events=events[name])
    return found
