"""What a report tells besides the audit: cameras, models, runs and erasures as they are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Connection, select

from resight.client.connection import Connection as Channel
from resight.errors import NotFound, PermissionDenied
from resight.v1 import (
    adaptation_service_pb2,
    admin_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
)
from service.audit.entry import stamped
from service.audit.tables import Table
from service.catalog.models import (
    adaptation_runs,
    cameras,
    erasures,
    galleries,
    model_bundles,
    model_events,
    models,
)

__all__ = ["CatalogRegisters", "Registers", "ServiceRegisters"]

_CAMERAS = ("gallery", "camera", "display name", "retention days")
_MODELS = ("gallery", "model", "state", "known since", "method", "parent", "gate", "score", "why")
_EVENTS = ("time", "gallery", "model", "change", "by", "reason")
_RUNS = ("gallery", "run", "state", "holder", "start", "end", "model", "new crops", "older crops",
         "reason")  # fmt: skip
_ERASURES = ("gallery", "erasure", "state", "reason", "asked by", "confirmed by", "asked",
             "complete", "to go", "removed", "subject")  # fmt: skip
_PAGE = 1000


class Registers(Protocol):
    """Where they are read."""

    def tables(self, galleries: Sequence[str]) -> Iterator[Table]:
        """One table a register; one that may not be read says so."""
        ...


class CatalogRegisters:
    """On the catalog, of every gallery.

    Args:
        connection: To it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tables(self, _galleries: Sequence[str]) -> Iterator[Table]:
        """Cameras with retention of their own, models, their changes, runs, erasures."""
        named = galleries.c.name
        wanted: Any = (
            select(named, cameras.c.camera_id, cameras.c.display_name, cameras.c.retention_days)
            .join(galleries, galleries.c.gallery_row == cameras.c.gallery_row)
            .where(cameras.c.retention_days.is_not(None))
            .order_by(named, cameras.c.camera_id)
        )
        yield self._table("camera_retention", "Cameras with a retention of their own", _CAMERAS,
                          wanted)  # fmt: skip
        bundles = model_bundles.c
        wanted = (
            select(
                named, models.c.version, models.c.state, models.c.create_time, bundles.method,
                bundles.parent_version, bundles.gate_outcome, bundles.gate_score,
                bundles.gate_reasons,
            )
            .join(galleries, galleries.c.gallery_row == models.c.gallery_row)
            .outerjoin(model_bundles, bundles.model_row == models.c.model_row)
            .order_by(named, models.c.model_row)
        )  # fmt: skip
        yield self._table("models", "Models and the verdicts on them", _MODELS, wanted)
        events = model_events.c
        wanted = (
            select(
                events.create_time, named, models.c.version, events.kind, events.actor,
                events.reason,
            )
            .join(models, models.c.model_row == events.model_row)
            .join(galleries, galleries.c.gallery_row == events.gallery_row)
            .order_by(events.event_row)
        )  # fmt: skip
        yield self._table("model_changes", "Changes of models", _EVENTS, wanted)
        runs = adaptation_runs.c
        wanted = (
            select(
                named, runs.run_id, runs.state, runs.holder, runs.start_time, runs.end_time,
                runs.model_version, runs.new_crops, runs.replay_crops, runs.reason,
            )
            .join(galleries, galleries.c.gallery_row == runs.gallery_row)
            .order_by(named, runs.run_row)
        )  # fmt: skip
        yield self._table("adaptation_runs", "Adaptation runs", _RUNS, wanted)
        gone = erasures.c
        wanted = (
            select(
                named, gone.erasure_id, gone.state, gone.reason, gone.principal, gone.confirmer,
                gone.create_time, gone.complete_time, gone.listed, gone.removed, gone.subject,
            )
            .join(galleries, galleries.c.gallery_row == gone.gallery_row)
            .order_by(named, gone.erasure_row)
        )  # fmt: skip
        yield self._table("erasures", "Erasures", _ERASURES, wanted)

    def _table(self, name: str, title: str, columns: Sequence[str], wanted: Any) -> Table:
        rows = [[_text(value) for value in row] for row in self._connection.execute(wanted)]
        return Table(name, title, columns, rows)


class ServiceRegisters:
    """Of a running service, as far as the key that is shown may read.

    Args:
        channel: To it.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def tables(self, galleries: Sequence[str]) -> Iterator[Table]:
        """Cameras with retention of their own, models, runs, erasures."""
        for name, title, columns, read in (
            ("camera_retention", "Cameras with a retention of their own", _CAMERAS, self._cameras),
            ("models", "Models and the verdicts on them", _MODELS, self._models),
            ("adaptation_runs", "Adaptation runs", _RUNS, self._runs),
            ("erasures", "Erasures", _ERASURES, self._erasures),
        ):
            yield _readable(name, title, columns, galleries, read)

    def _cameras(self, gallery: str) -> Iterator[list[str]]:
        request = gallery_service_pb2.ListCamerasRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.gallery.ListCameras, request):
            for one in page.cameras:
                if one.HasField("retention_days"):
                    days = _text(one.retention_days)
                    yield [gallery, one.camera_id, one.display_name, days]

    def _models(self, gallery: str) -> Iterator[list[str]]:
        request = model_service_pb2.ListModelsRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.models.ListModels, request):
            for one in page.models:
                state = model_service_pb2.Model.State.Name(one.state).removeprefix("STATE_")
                outcome = model_service_pb2.GateVerdict.Outcome.Name(one.gate.outcome)
                yield [
                    gallery, one.model_version, state.lower(), _time(one.create_time), one.method,
                    one.parent_version, outcome.removeprefix("OUTCOME_").lower(),
                    _text(one.gate.score), "; ".join(one.gate.reasons),
                ]  # fmt: skip

    def _runs(self, gallery: str) -> Iterator[list[str]]:
        request = adaptation_service_pb2.ListAdaptationRunsRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.adaptation.ListAdaptationRuns, request):
            for one in page.runs:
                state = adaptation_service_pb2.AdaptationRun.State.Name(one.state)
                yield [
                    gallery, one.run_id, state.removeprefix("STATE_").lower(), one.holder,
                    _time(one.start_time), _time(one.end_time), one.model_version,
                    str(one.new_crops), str(one.replay_crops), one.reason,
                ]  # fmt: skip

    def _erasures(self, gallery: str) -> Iterator[list[str]]:
        request = admin_service_pb2.ListErasuresRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.admin.ListErasures, request):
            for one in page.erasures:
                state = admin_service_pb2.Erasure.State.Name(one.state).removeprefix("STATE_")
                yield [
                    gallery, one.erasure_id, state.lower(), one.reason, one.principal,
                    one.confirmer, _time(one.create_time), _time(one.complete_time),
                    str(one.crops), str(one.removed), one.subject,
                ]  # fmt: skip


def _readable(
    name: str,
    title: str,
    columns: Sequence[str],
    galleries: Sequence[str],
    read: Callable[[str], Iterator[list[str]]],
) -> Table:
    rows: list[list[str]] = []
    notes = []
    for gallery in galleries:
        try:
            rows += list(read(gallery))
        except PermissionDenied as error:
            notes.append(f"not shown: {error}")
            break
        except NotFound:  # it was only ever asked for
            continue
    return Table(name, title, columns, rows, " ".join(notes))


def _pages(call: Callable[[Any], Any], request: Any) -> Iterator[Any]:
    while True:
        page = call(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _time(value: Timestamp) -> str:
    return stamped(value.ToDatetime(UTC)) if value.seconds or value.nanos else ""


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return stamped(value)
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | dict):
        return "; ".join(map(str, value)) if isinstance(value, list) else json.dumps(value)
    return str(value)
