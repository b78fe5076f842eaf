"""Crops of a camera kept for a time of its own: in catalog, index, images, followers, restores."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, update

from resight.errors import InvalidArgument, NotFound, Unavailable
from service.adaptation_settings import RetentionSettings
from service.application.following import follow
from service.application.ingest import IngestItem
from service.application.retention import Retention
from service.call import Call, begin
from service.catalog import gallery_writes
from service.catalog.models import CHANGE_CROP_DELETED, CHANGE_CROPS_DROPPED, cameras
from service.domain.principal import LOCAL
from service.gallery.index import SegmentedIndex
from service.telemetry import REGISTRY

DAY = timedelta(days=1)


def retention_of(application, clock, *, days, batch=4) -> Retention:
    return Retention(
        catalog=application._catalog,
        galleries=application._galleries,
        blobs=application._blobs,
        clock=clock,
        settings=RetentionSettings(days=days, batch_crops=batch),
        elapsed=lambda: clock.now().timestamp(),
    )


async def fill(application, clock, *, seed: int, count: int = 60) -> dict[UUID, tuple]:
    draw = random.Random(seed)
    stored = {}
    for number in range(count):
        camera = f"c{draw.randrange(3) + 1}"
        time = clock.now() - DAY * draw.uniform(0, 10)
        item = IngestItem("", camera, time, b"%d" % number)
        stored[(await application.ingest.submit(item)).crop_id] = (camera, time)
    return stored


def indexed(index: SegmentedIndex) -> set[UUID]:
    return {UUID(int=(high << 64) | low) for high, low in index.snapshot.ids().tolist()}


# What is kept is said once more here, crop by crop.
@pytest.mark.parametrize(
    ("service", "own"),
    [
        (5.0, {}),
        (5.0, {"c1": 2.0}),
        (5.0, {"c1": 2.0, "c2": 9.0}),
        (None, {"c3": 1.0}),
        (None, {"c1": 1.0, "c2": 3.0, "c3": 6.0}),
        (1.0, {"c1": 8.0, "c2": 8.0, "c3": 8.0}),
    ],
)
def test_each_camera_keeps_its_own_time(opened, run, clock, query, tmp_path, service, own) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            gallery = application._galleries.get("")
            stored = await fill(application, clock, seed=3)
            follower = SegmentedIndex(gallery.record.dimension, segment_rows=16)
            targets = [(gallery.record, follower)]
            with application._catalog.connect() as connection:
                position, _ = follow(connection, gallery.row, targets, after=0)
            for camera, days in own.items():
                # Past the use case, which would have the service's own retention look, too.
                row = gallery.camera(camera, field="").camera_row
                apply = partial(gallery_writes.set_retention, camera_row=row, days=days)
                await application._catalog.change(apply)
            kept = {
                crop_id
                for crop_id, (camera, time) in stored.items()
                if (days := own.get(camera, service)) is None or time >= clock.now() - DAY * days
            }
            assert 0 < len(kept) < len(stored)
            retention = retention_of(application, clock, days=service)
            assert retention.drop_expired() == len(stored) - len(kept)
            assert retention.drop_expired() == 0
            listed = await application.crops.list("", page_size=100)
            assert {crop.crop_id for crop in listed.items} == kept
            assert indexed(gallery.serving.index) == kept
            with application._catalog.connect() as connection:
                follow(connection, gallery.row, targets, after=position)
            assert indexed(follower) == kept
            images = [p for p in (tmp_path / "data" / "blobs").rglob("*") if p.is_file()]
            assert len(images) == len(kept)
        kinds = {kind for (kind,) in query("select distinct kind from changes")}
        # Without times of their own the log needs no entry a crop.
        assert (CHANGE_CROP_DELETED in kinds) == (bool(own) and service != 1.0)
        assert (CHANGE_CROPS_DROPPED in kinds) == (service is not None or len(own) == 3)

    run(work())


def test_a_start_drops_what_a_camera_keeps_no_longer(opened, run, clock, catalog_url) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            stored = await fill(application, clock, seed=4)
        # As in a catalog that was restored.
        engine = create_engine(catalog_url)
        with engine.begin() as connection:
            chosen = update(cameras).where(cameras.c.camera_id == "c2")
            connection.execute(chosen.values(retention_days=2.0))
        engine.dispose()
        kept = {
            crop_id
            for crop_id, (camera, time) in stored.items()
            if camera != "c2" or time >= clock.now() - 2 * DAY
        }
        assert len(kept) < len(stored)
        async with opened(clock=clock, cameras=False) as application:
            assert indexed(application._galleries.get("").serving.index) == kept

    run(work())


def test_a_changed_time_is_enforced_at_once(opened, run, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            stored = await fill(application, clock, seed=5, count=20)
            camera = await application.camera_retention.update("", "c1", 0.5)
            assert (camera.camera_id, camera.retention_days) == ("c1", 0.5)
            page = await application.cameras.list("")
            assert [each.retention_days for each in page.items] == [0.5, None, None]
            limit = clock.now() - DAY * 0.5
            kept = {key for key, (name, time) in stored.items() if name != "c1" or time >= limit}
            for _ in range(6000):
                if len(application._galleries.get("").serving.index) == len(kept):
                    break
                await asyncio.sleep(0.02)
            assert indexed(application._galleries.get("").serving.index) == kept
            camera = await application.camera_retention.update("", "c1", None)
            assert camera.retention_days is None
            for wrong in (0.0, -1.0, float("nan"), float("inf"), 1e6):
                with pytest.raises(InvalidArgument, match="retention_days"):
                    await application.camera_retention.update("", "c1", wrong)
            with pytest.raises(NotFound, match="c9"):
                await application.camera_retention.update("", "c9", 1.0)

    run(work())


@pytest.mark.parametrize("fails", [False, True])
def test_a_caller_who_leaves_during_the_commit_is_recorded_with_what_came_of_it(
    opened, run, clock, monkeypatch, fails
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    set_retention = gallery_writes.set_retention

    def held(*arguments: Any, **named: Any) -> object:
        begun.set()
        assert go_on.wait(120)
        if fails:
            raise Unavailable("the disk is full")
        return set_retention(*arguments, **named)

    async def work() -> None:
        async with opened(clock=clock) as application:
            monkeypatch.setattr(gallery_writes, "set_retention", held)
            asked = Call("grpc", "AdminService/UpdateCameraRetention", principal=LOCAL)

            async def update() -> None:
                begin(asked)
                await application.camera_retention.update("", "c1", 9000.0)

            updating = asyncio.create_task(update())
            assert await asyncio.to_thread(begun.wait, 120)
            updating.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            go_on.set()
            await asyncio.wait([updating])
            assert updating.cancelled()
            assert asked.notes.get("changed", False) is not fails
            [first, *_] = (await application.cameras.list("")).items
            assert first.retention_days == (None if fails else 9000.0)

    run(work())


def test_the_gauge_says_for_how_long_a_crop_is_overdue(opened, run, clock, monkeypatch) -> None:
    def overdue() -> float:
        return REGISTRY.get_sample_value("resight_retention_overdue_seconds") or 0.0

    async def work() -> None:
        async with opened(clock=clock) as application:
            item = IngestItem("", "c1", clock.now() - DAY, b"one")
            await application.ingest.submit(item)
            retention = retention_of(application, clock, days=2.0)
            retention.drop_expired()
            retention.show()
            assert overdue() == 0.0
            clock.pass_seconds(86_400 + 3600)
            retention.show()
            assert overdue() == pytest.approx(3600)
            retention.drop_expired()
            retention.show()
            assert overdue() == 0.0

    run(work())
