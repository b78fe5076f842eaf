"""Adaptation runs: started under a lease, kept alive, reported on, ended."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from resight.errors import InvalidArgument
from service import call
from service.adaptation_settings import NightlySettings
from service.application.galleries import Galleries
from service.application.gallery import Gallery
from service.application.run_key import RunKey, require_images
from service.catalog import erasure_reads, run_reads, runs
from service.catalog.crop_deletions import MAX_IN
from service.catalog.run_reads import RunRecord
from service.catalog.store import Catalog
from service.catalog.window import Window, counts_by_camera
from service.domain import adaptation as domain
from service.domain import names
from service.domain.adaptation import AdaptationRun, Ending, LeaseRule, Progress, RunState
from service.domain.identifier import uuid7
from service.domain.ports import Clock
from service.telemetry import ADAPTATION_CROPS, ADAPTATION_LAST_SUCCESS, ADAPTATION_RUNS

__all__ = ["Adaptation", "CameraCrops", "LeaseGauges", "StartedRun"]

BEATS_PER_LEASE = 3


@dataclass(frozen=True, slots=True)
class CameraCrops:
    """How many crops of a camera lie in a run's window, and before it."""

    camera_id: str
    new_crops: int
    older_crops: int


@dataclass(frozen=True, slots=True)
class StartedRun:
    """What a starter gets."""

    run: AdaptationRun
    lease_token: str
    heartbeat_interval: timedelta
    cameras: Sequence[CameraCrops]


@dataclass(frozen=True, slots=True)
class LeaseGauges:
    """What the metrics show of one gallery."""

    held: bool


class Adaptation:
    """Lets one run at a time adapt a gallery's encoder, and keeps its record."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        galleries: Galleries,
        clock: Clock,
        settings: NightlySettings,
        images_stored: bool,
    ) -> None:
        self._catalog = catalog
        self._galleries = galleries
        self._clock = clock
        self._settings = settings
        self._images_stored = images_stored
        self._rule = LeaseRule(
            timedelta(seconds=settings.lease_seconds), timedelta(seconds=settings.max_lease_seconds)
        )
        self._expiry = catalog.read_now(run_reads.leases)

    async def start(self, gallery: str, holder: str, lease: timedelta | None = None) -> StartedRun:
        """Take the gallery's lease and begin a run.

        Raises:
            InvalidArgument, NotFound: bad holder or lease, unknown gallery.
            FailedPrecondition: another run holds the lease (``LEASE_HELD``), or images are not
                stored (``IMAGES_NOT_STORED``).
        """
        live = self._galleries.get(gallery)
        who, length = domain.holder(holder), self._rule.check(lease)
        require_images(self._images_stored)
        identifier, token = uuid7(self._clock.now()), secrets.token_urlsafe(24)
        key = RunKey(live.name, str(identifier), token)

        def apply(connection: Connection) -> tuple[RunRecord, bool]:
            return runs.start_run(
                connection,
                live.record.gallery_row,
                run_id=identifier,
                token_digest=key.token_digest,
                holder=who,
                lease=length,
                now=self._clock.now(),
            )

        call.current().note(run_id=str(identifier), holder=who)
        record, took_over = await self._catalog.change(apply)
        self._noted(live, record)
        if took_over:
            ADAPTATION_RUNS.labels(live.name, RunState.ABANDONED.value).inc()
        counts = await self._catalog.read(_counts, live, record)
        cameras = [
            CameraCrops(name, *(count.get(camera.camera_row, 0) for count in counts))
            for name, camera in sorted(live.cameras.items())
        ]
        return StartedRun(record.run, token, length / BEATS_PER_LEASE, cameras)

    async def heartbeat(
        self, key: RunKey, lease: timedelta | None = None, progress: Progress | None = None
    ) -> AdaptationRun:
        """Extend the lease and note the progress.

        Raises:
            FailedPrecondition: the lease is lost, the token is wrong or the run has ended.
        """
        length = None if lease is None else self._rule.check(lease)

        def apply(connection: Connection, gallery_row: int, record: RunRecord) -> RunRecord:
            return runs.extend_lease(
                connection,
                gallery_row,
                record,
                lease=length,
                progress=progress,
                now=self._clock.now(),
            )

        return (await self._held(key, apply)).run

    async def report(
        self,
        key: RunKey,
        figures: Mapping[str, Any] | None,
        new_crop_ids: Sequence[str] = (),
        replay_crop_ids: Sequence[str] = (),
    ) -> AdaptationRun:
        """Add figures and crops to the record.

        Raises:
            InvalidArgument: too much, or not JSON.
            FailedPrecondition: as ``heartbeat``.
        """
        text = None
        if figures is not None:
            text = domain.figures_text(
                figures,
                limit=self._settings.max_figures_bytes,
                setting="nightly.max_figures_bytes",
                name="figures",
            )
        added = len(new_crop_ids) + len(replay_crop_ids)
        if added > self._settings.max_report_crops:
            raise InvalidArgument(
                f"the report has {added} crop ids; send at most {self._settings.max_report_crops} "
                "a call (nightly.max_report_crops) and report the others in another",
                field="new_crop_ids",
            )
        fresh = [names.crop_id(value, field="new_crop_ids") for value in new_crop_ids]
        replay = [names.crop_id(value, field="replay_crop_ids") for value in replay_crop_ids]
        call.current().note(new_crops=len(fresh), replay_crops=len(replay))

        def apply(connection: Connection, gallery_row: int, record: RunRecord) -> RunRecord:
            now = self._clock.now()
            if text is not None:
                runs.note_figures(connection, record.run_row, text, now=now)
            runs.note_crops(connection, record.run_row, fresh, replay=False, now=now)
            runs.note_crops(connection, record.run_row, replay, replay=True, now=now)
            stored = runs.extend_lease(
                connection, gallery_row, record, lease=None, progress=None, now=now
            )
            # Raising undoes what was noted.
            if stored.run.new_crops + stored.run.replay_crops > self._settings.max_run_crops:
                raise InvalidArgument(
                    f"the run used more than {self._settings.max_run_crops} crops; use fewer, or "
                    "raise nightly.max_run_crops",
                    field="new_crop_ids",
                )
            return stored

        return (await self._held(key, apply)).run

    async def missing(self, key: RunKey, crop_ids: Sequence[str]) -> list[UUID]:
        """Which of these crops are stored no longer: whoever holds them must delete them.

        Raises:
            InvalidArgument: too many, or not ids.
            FailedPrecondition: as ``heartbeat``.
        """
        if len(crop_ids) > self._settings.max_report_crops:
            raise InvalidArgument(
                f"crop_ids has {len(crop_ids)} ids; send at most {self._settings.max_report_crops} "
                "a call (nightly.max_report_crops)",
                field="crop_ids",
            )
        wanted = [names.crop_id(value, field="crop_ids") for value in crop_ids]
        live, identifier = self._galleries.get(key.gallery), key.identifier()
        call.current().note(run_id=str(identifier), crops=len(wanted))
        row = live.record.gallery_row

        def read(connection: Connection) -> list[UUID]:
            run_reads.require_holder(connection, row, identifier, key.token_digest)
            there: set[UUID] = set()
            for start in range(0, len(wanted), MAX_IN):
                there |= erasure_reads.instances(
                    connection, row, wanted[start : start + MAX_IN]
                ).keys()
            return [crop_id for crop_id in wanted if crop_id not in there]

        gone = await self._catalog.read(read)
        call.current().note(missing=len(gone))
        return gone

    async def finish(self, key: RunKey, ending: Ending) -> AdaptationRun:
        """End the run and release its lease; the same ending again changes nothing.

        Raises:
            FailedPrecondition: as ``heartbeat``; a success without a candidate.
        """
        live, identifier = self._galleries.get(key.gallery), key.identifier()
        call.current().note(run_id=str(identifier), state=ending.state.value)
        gallery_row = live.record.gallery_row

        def apply(connection: Connection) -> tuple[RunRecord, bool]:
            runs.lock_gallery(connection, gallery_row)
            known = run_reads.require_token(connection, gallery_row, identifier, key.token_digest)
            if known.run.state is ending.state and known.run.reason == ending.reason:
                return known, False
            record = run_reads.require_running(known)
            return runs.end_run(
                connection, gallery_row, record, ending, now=self._clock.now()
            ), True

        record, ended = await self._catalog.change(apply)
        if ended:
            self._noted(live, record)
            run = record.run
            ADAPTATION_RUNS.labels(live.name, run.state.value).inc()
            if run.state is RunState.SUCCEEDED:
                ADAPTATION_CROPS.labels(live.name, "new").inc(run.new_crops)
                ADAPTATION_CROPS.labels(live.name, "replay").inc(run.replay_crops)
        return record.run

    def gauges(self) -> dict[str, LeaseGauges]:
        """What the metrics show, by gallery."""
        now, expiry = self._clock.now(), self._expiry
        until = {live.name: expiry.get(live.record.gallery_row) for live in self._galleries.all()}
        return {name: LeaseGauges(at is not None and at > now) for name, at in until.items()}

    async def _held(
        self, key: RunKey, apply: Callable[[Connection, int, RunRecord], RunRecord]
    ) -> RunRecord:
        """Run a change in the transaction that has seen that the caller holds the lease."""
        live, identifier = self._galleries.get(key.gallery), key.identifier()
        call.current().note(run_id=str(identifier))
        gallery_row = live.record.gallery_row

        def guarded(connection: Connection) -> RunRecord:
            runs.lock_gallery(connection, gallery_row)
            record = run_reads.require_holder(connection, gallery_row, identifier, key.token_digest)
            return apply(connection, gallery_row, record)

        record = await self._catalog.change(guarded)
        self._noted(live, record)
        return record

    def _noted(self, live: Gallery, record: RunRecord) -> None:
        row, run = live.record.gallery_row, record.run
        if run.lease_expire_time is not None:
            self._expiry[row] = run.lease_expire_time
        else:
            self._expiry.pop(row, None)
        if run.state is RunState.SUCCEEDED and run.end_time is not None:
            ADAPTATION_LAST_SUCCESS.labels(live.name).set(run.end_time.timestamp())


def _counts(
    connection: Connection, live: Gallery, record: RunRecord
) -> tuple[dict[int, int], dict[int, int]]:
    """Crops by camera row in the run's window, and before it."""
    row, cameras = live.record.gallery_row, [c.camera_row for c in live.cameras.values()]
    inside = Window(row, record.since_row, record.until_row, cameras)
    before = Window(row, 0, record.since_row, cameras)
    return counts_by_camera(connection, inside), counts_by_camera(connection, before)
