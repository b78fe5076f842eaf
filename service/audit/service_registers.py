"""The registers of a report, asked of a running service as far as the key that is shown may."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from resight.client.faults import translated
from resight.errors import NotFound, PermissionDenied
from resight.v1 import (
    adaptation_service_pb2,
    admin_service_pb2,
    gallery_service_pb2,
    model_service_pb2,
)
from service.audit.past_retention import PastRetention
from service.audit.reading import ServiceAudit
from service.audit.registers import (
    CAMERAS,
    ERASURES,
    IMAGES,
    MODELS,
    RUNS,
    Register,
    erased_within,
    past_retention,
)
from service.audit.span import Span
from service.audit.tables import Table
from service.catalog.audit import Selection

__all__ = ["ServiceRegisters"]

_PAGE = 1000
_STATES_NOW = "Where models stand now: changes since the end of this time are not undone."
_IMAGES_ELSEWHERE = (
    "Told by a report of the catalog (--data), by `resight gallery verify` and by the metric "
    "resight_image_removal_overdue_seconds."
)

_Row = Sequence[Any]


class ServiceRegisters:
    """Of the galleries that the audit names, or the one that is wanted.

    Args:
        source: The service.
    """

    def __init__(self, source: ServiceAudit) -> None:
        self._source = source
        self._channel = source.channel

    def tables(self, galleries: Sequence[str], wanted: Selection) -> Iterator[Table]:
        """Cameras with retention of their own, models, runs, erasures."""
        named = [wanted.gallery] if wanted.gallery else galleries
        span = Span.of(wanted)
        past = past_retention(self._source, wanted)
        note = "" if span.end is None else _STATES_NOW
        yield _readable(CAMERAS, named, lambda name: self._cameras(name, span, past))
        yield _readable(MODELS, named, lambda name: self._models(name, span), note)
        yield _readable(RUNS, named, lambda name: self._runs(name, span))
        yield _readable(ERASURES, named, lambda name: self._erasures(name, span))
        yield IMAGES.table([], _IMAGES_ELSEWHERE)

    def _cameras(self, gallery: str, span: Span, past: PastRetention | None) -> Iterator[_Row]:
        request = gallery_service_pb2.ListCamerasRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.gallery.ListCameras, request):
            for one in page.cameras:
                days = one.retention_days if one.HasField("retention_days") else None
                own = days if past is None else past.days(gallery, one.camera_id, days)
                if own is not None and span.knows(_required(one.create_time)):
                    yield gallery, one.camera_id, one.display_name, own

    def _models(self, gallery: str, span: Span) -> Iterator[_Row]:
        request = model_service_pb2.ListModelsRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.models.ListModels, request):
            for one in page.models:
                state = model_service_pb2.Model.State.Name(one.state).removeprefix("STATE_")
                outcome = model_service_pb2.GateVerdict.Outcome.Name(one.gate.outcome)
                if span.knows(_required(one.create_time)):
                    yield (
                        gallery, one.model_version, state.lower(), _time(one.create_time),
                        one.method, one.parent_version,
                        outcome.removeprefix("OUTCOME_").lower(), one.gate.score,
                        "; ".join(one.gate.reasons),
                    )  # fmt: skip

    def _runs(self, gallery: str, span: Span) -> Iterator[_Row]:
        request = adaptation_service_pb2.ListAdaptationRunsRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.adaptation.ListAdaptationRuns, request):
            for one in page.runs:
                state = adaptation_service_pb2.AdaptationRun.State.Name(one.state)
                start, end = _required(one.start_time), _time(one.end_time)
                if span.meets(start, end):
                    yield (
                        gallery, one.run_id, state.removeprefix("STATE_").lower(), one.holder,
                        start, end, one.model_version, one.new_crops, one.replay_crops,
                        one.reason,
                    )  # fmt: skip

    def _erasures(self, gallery: str, span: Span) -> Iterator[_Row]:
        request = admin_service_pb2.ListErasuresRequest(gallery=gallery, page_size=_PAGE)
        for page in _pages(self._channel.admin.ListErasures, request):
            for one in page.erasures:
                state = admin_service_pb2.Erasure.State.Name(one.state).removeprefix("STATE_")
                asked = _required(one.create_time)
                confirmed, ended = _time(one.confirm_time), _time(one.complete_time)
                if erased_within(span, asked, confirmed, ended):
                    yield (
                        gallery, one.erasure_id, state.lower(), one.reason, one.principal,
                        one.confirmer, asked, confirmed, ended, one.crops, one.removed,
                        one.subject,
                    )  # fmt: skip


def _readable(
    register: Register,
    galleries: Sequence[str],
    read: Callable[[str], Iterator[_Row]],
    note: str = "",
) -> Table:
    rows: list[_Row] = []
    notes = [note] if note else []
    for gallery in galleries:
        try:
            rows += list(read(gallery))
        except PermissionDenied as error:
            notes.append(f"not shown: {error}")
            break
        except NotFound:  # it was only ever asked for
            continue
    return register.table(rows, " ".join(notes))


def _pages(call: Callable[[Any], Any], request: Any) -> Iterator[Any]:
    while True:
        with translated():
            page = call(request)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _required(value: Timestamp) -> datetime:
    return value.ToDatetime(UTC)


def _time(value: Timestamp) -> datetime | None:
    return _required(value) if value.seconds or value.nanos else None
