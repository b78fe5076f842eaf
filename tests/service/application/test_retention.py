"""Crops that are too old go from catalog, index and blob store, and from every follower."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import select

from resight.errors import FailedPrecondition
from service.adaptation_settings import RetentionSettings
from service.application.following import follow
from service.application.ingest import IngestItem
from service.application.retention import Retention
from service.catalog.models import CHANGE_CROPS_DROPPED, changes
from service.erasure_ledger import erasures
from service.gallery.index import SegmentedIndex

DAY = timedelta(days=1)


def retention_of(application, clock, *, days=2.0, batch=3) -> Retention:
    return Retention(
        catalog=application._catalog,
        galleries=application._galleries,
        blobs=application._blobs,
        clock=clock,
        settings=RetentionSettings(days=days, batch_crops=batch),
        elapsed=lambda: clock.now().timestamp(),
    )


async def put(application, time, image: bytes) -> UUID:
    result = await application.ingest.submit(IngestItem("", "c1", time, image))
    assert result.outcome.name == "ACCEPTED", result
    return result.crop_id


def indexed(index: SegmentedIndex) -> set[UUID]:
    return {UUID(int=(high << 64) | low) for high, low in index.snapshot.ids().tolist()}


def test_what_is_too_old_is_gone_everywhere(opened, run, at, clock, query, tmp_path) -> None:
    random.seed(5)
    times = [at(-86_400 * random.uniform(0, 4)) for _ in range(40)]

    async def work() -> None:
        async with opened(clock=clock) as application:
            gallery = application._galleries.get("")
            follower = SegmentedIndex(gallery.record.dimension, segment_rows=16)
            targets = [(gallery.record, follower)]
            stored = {}
            for number, time in enumerate(times):
                stored[await put(application, time, b"%d" % number)] = time
                if number == 20:
                    with application._catalog.connect() as connection:
                        position, _ = follow(connection, gallery.row, targets, after=0)
            retention = retention_of(application, clock)
            cut_off = clock.now() - 2 * DAY
            kept = {crop_id for crop_id, time in stored.items() if time >= cut_off}
            assert 10 < len(kept) < 30
            assert retention.drop_expired() == len(stored) - len(kept)
            assert retention.drop_expired() == 0
            listed = await application.crops.list("", page_size=100)
            assert {crop.crop_id for crop in listed.items} == kept
            assert indexed(gallery.serving.index) == kept
            # Captured long ago and sent late: there until the next time.
            late = await put(application, cut_off - 5 * DAY, b"late")
            with application._catalog.connect() as connection:
                newest, _ = follow(connection, gallery.row, targets, after=position)
            assert newest == gallery.applied
            assert indexed(follower) == indexed(gallery.serving.index) == kept | {late}
            assert retention.drop_expired() == 1
            assert indexed(gallery.serving.index) == kept
            images = [p for p in (tmp_path / "data" / "blobs").rglob("*") if p.is_file()]
            assert len(images) == len(kept)
        assert list(erasures(tmp_path / "data" / "erasures")) == []

    run(work())
    positions = [row[0] for row in query("SELECT position FROM changes ORDER BY position")]
    assert positions == list(range(1, len(positions) + 1))
    drops = [
        row[0]
        for row in query(
            select(changes.c.cut_off)
            .where(changes.c.kind == CHANGE_CROPS_DROPPED)
            .order_by(changes.c.position)
        )
    ]
    assert drops[:-1] == sorted(set(drops[:-1])), "each says more than the one before"
    assert len(drops) > 5
    assert query("SELECT count(*) FROM blob_removals") == [(0,)]
    assert query(
        "SELECT count(*) FROM embeddings WHERE crop_row NOT IN (SELECT crop_row FROM crops)"
    ) == [(0,)]


def test_more_crops_of_one_microsecond_than_a_batch(opened, run, at, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            for number in range(8):
                await put(application, at(0), b"%d" % number)
            kept = await put(application, at(1e-6), b"next")
            clock.time = at(0) + 2 * DAY + timedelta(microseconds=1)
            assert retention_of(application, clock).drop_expired() == 8
            assert indexed(application._galleries.get("").serving.index) == {kept}

    run(work())


def test_a_start_drops_before_it_serves(opened, run, at, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            await put(application, at(0), b"old")
            kept = await put(application, at(3600), b"young")
        clock.time = at(86_400 + 1800)
        async with opened(clock=clock, cameras=False, retention={"days": 1}) as application:
            assert application.crop_count == 1
            (crop,) = (await application.crops.list("")).items
            assert crop.crop_id == kept
        async with opened(clock=clock, cameras=False) as application:
            assert application.crop_count == 1

    run(work())


def test_index_files_from_before_a_drop_follow_it(opened, run, at, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            for number in range(10):
                await put(application, at(number), b"%d" % number)
        clock.time = at(86_400 + 5)
        # A process that does not end well: its index files are of before the drop.
        async with opened(clock=clock, cameras=False) as application:
            application.index_files._write = lambda _: None
            assert retention_of(application, clock, days=1.0).drop_expired() == 5
        async with opened(clock=clock, cameras=False) as application:
            assert application.crop_count == 5

    run(work())


def test_images_that_cannot_be_removed_go_at_the_next_start(
    opened, run, at, clock, query, monkeypatch, tmp_path
) -> None:
    def fails(_: str) -> None:
        raise OSError("store is away")

    async def work() -> None:
        async with opened(clock=clock) as application:
            for number in range(5):
                await put(application, at(number), b"%d" % number)
            clock.time = at(3 * 86_400)
            monkeypatch.setattr(application._blobs, "delete", fails)
            assert retention_of(application, clock).drop_expired() == 5
        assert query("SELECT count(*) FROM blob_removals") == [(5,)]
        async with opened(clock=clock, cameras=False):
            pass
        assert not [p for p in (tmp_path / "data" / "blobs").rglob("*") if p.is_file()]

    run(work())


def test_a_clock_that_jumped_drops_nothing(opened, run, at, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            await put(application, at(0), b"x")
            retention = Retention(
                catalog=application._catalog,
                galleries=application._galleries,
                blobs=application._blobs,
                clock=clock,
                settings=RetentionSettings(days=30),
                elapsed=lambda: 0.0,
            )
            clock.time += 365 * DAY
            with pytest.raises(FailedPrecondition, match="set wrong, so nothing is dropped"):
                retention.drop_expired()
            assert application.crop_count == 1

    run(work())


def test_nothing_is_dropped_unless_asked(opened, run, at, clock) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            await put(application, at(0), b"x")
            clock.time += 36_500 * DAY
            assert application.retention.drop_expired() == 0
            assert application.crop_count == 1

    run(work())


def test_it_goes_on_at_intervals(opened, run, at, clock) -> None:
    async def work() -> None:
        settings = {"days": 1, "interval_seconds": 0.02}
        clock.time = at(0) + timedelta(hours=12)
        async with opened(clock=clock, retention=settings) as application:
            await put(application, at(0), b"old")
            await put(application, at(3600 * 11), b"young")
            clock.time = at(0) + timedelta(hours=25)
            async with asyncio.timeout(120):
                while application.crop_count > 1:  # noqa: ASYNC110 -- nothing tells
                    await asyncio.sleep(0.01)
            (crop,) = (await application.crops.list("")).items
            assert crop.capture_time == at(3600 * 11)

    run(work())
