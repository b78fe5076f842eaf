"""Images of deleted crops that the blob store refuses to remove are tried until they are gone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from prometheus_client import generate_latest

from resight.errors import Unavailable
from service.application.blob_sweep import BlobsInFlight
from service.application.image_removal import (
    AT_A_TIME,
    PATIENCE,
    PATIENCE_SECONDS,
    ImageRemoval,
)
from service.application.ingest import IngestItem
from service.blobs import FolderBlobStore
from service.catalog.crop_reads import oldest_blob_removal, pending_blob_removals
from service.catalog.models import blob_removals
from service.domain.identifier import image_key, image_of_key, uuid7
from service.gauges import refresh_gauges
from service.telemetry import REGISTRY

SECONDS = 120


class Refusing:
    """Stands before every folder of images: keys that it locks cannot be removed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.locked: Callable[[str], bool] = lambda _: True
        self.asked: list[str] = []
        remove = FolderBlobStore.delete_all

        def delete_all(store: FolderBlobStore, keys: Sequence[str]) -> None:
            for key in keys:
                self.asked.append(key)
                if self.locked(key):
                    raise PermissionError(1, "Operation not permitted", key)
                remove(store, [key])

        monkeypatch.setattr(FolderBlobStore, "delete_all", delete_all)


@pytest.fixture
def store(monkeypatch) -> Refusing:
    return Refusing(monkeypatch)


@pytest.fixture
def images(tmp_path) -> Callable[[], set[str]]:
    """Keys of what lies in the blob store."""
    root = tmp_path / "data" / "blobs"

    def found() -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    return found


async def put(application, time, image: bytes) -> UUID:
    result = await application.ingest.submit(IngestItem("", "c1", time, image))
    assert result.outcome.name == "ACCEPTED", result
    return result.crop_id


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():  # noqa: ASYNC110 -- nothing tells
            await asyncio.sleep(0.01)


def overdue(application) -> float:
    refresh_gauges(application)
    return REGISTRY.get_sample_value("resight_image_removal_overdue_seconds")


def test_what_was_refused_goes_while_the_service_runs(
    opened, run, at, clock, store, images, query
) -> None:
    async def work() -> None:
        intervals = {"retention": {"interval_seconds": 0.02}, "metrics": {"refresh_seconds": 0.02}}
        async with opened(clock=clock, **intervals) as application:
            old = [await put(application, at(number), b"%d" % number) for number in range(4)]
            before = images()
            await put(application, clock.now(), b"kept")
            (kept,) = images() - before
            assert overdue(application) == 0
            with pytest.raises(Unavailable, match="tries it again by itself"):
                await application.crops.delete("", str(old[0]))
            clock.pass_seconds(100)
            await application.camera_retention.update("", "c1", 0.5)
            await until(lambda: application.crop_count == 1)
            await until(lambda: query("SELECT count(*) FROM blob_removals") == [(4,)])
            asked = len(store.asked)
            await until(lambda: len(store.asked) > asked + 20)
            assert len(images()) == 5
            clock.pass_seconds(7200)
            # Since the first was deleted, though others came later and are tried as often.
            await until(lambda: overdue(application) == 7300)
            assert b"\nresight_image_removal_overdue_seconds 7300.0\n" in generate_latest(REGISTRY)
            store.locked = lambda _: False
            await until(lambda: images() == {kept})
            await until(lambda: query("SELECT count(*) FROM blob_removals") == [(0,)])
            await until(lambda: overdue(application) == 0)

    run(work())


def test_a_store_that_refuses_does_not_stop_the_start(opened, run, at, store, images) -> None:
    async def work() -> None:
        async with opened() as application:
            crop_id = await put(application, at(0), b"one")
            with pytest.raises(Unavailable):
                await application.crops.delete("", str(crop_id))
        async with opened(cameras=False) as application:
            assert len(images()) == 1
            await until(lambda: overdue(application) > 0)
        store.locked = lambda _: False
        async with opened(cameras=False) as application:
            assert not images()
            assert await application._catalog.read(oldest_blob_removal) is None

    run(work())


def noted(application, clock, count: int, gallery: str = "default") -> list[str]:
    """Images of deleted crops, written and noted for removal, as the catalog orders them."""
    keys = sorted(image_key(gallery, uuid7(clock.now())) for _ in range(count))
    application._blobs.put_all([(key, b"x") for key in keys])
    rows = [{"blob_key": key, "create_time": clock.now()} for key in keys]
    note(application, rows)
    return keys


def note(application, rows) -> None:
    application._catalog.writer.change(
        lambda connection: connection.execute(blob_removals.insert(), rows)
    ).result()


def waiting(application) -> set[str]:
    return set(application._catalog.read_now(pending_blob_removals, after="", limit=100_000))


def removal_of(application, clock, in_flight: BlobsInFlight | None = None, **more) -> ImageRemoval:
    return ImageRemoval(
        catalog=application._catalog,
        blobs=application._blobs,
        clock=clock,
        in_flight=in_flight,
        **more,
    )


def test_a_start_that_was_refused_one_image_is_followed_by_a_try_of_the_others(
    opened, run, clock, store, images, monkeypatch
) -> None:
    starts: list[bool] = []
    start = ImageRemoval.start

    def watched(removal: ImageRemoval, threads, *, at_once: bool, **more) -> None:
        starts.append(at_once)
        start(removal, threads, at_once=at_once, **more)

    monkeypatch.setattr(ImageRemoval, "start", watched)

    async def work() -> None:
        async with opened(clock=clock) as application:
            locked, *_ = noted(application, clock, 11)
        store.locked = locked.__eq__
        async with opened(clock=clock, cameras=False) as application:
            # The next interval begins in an hour.
            await until(lambda: waiting(application) == {locked})
            assert images() == {locked}
        store.locked = lambda _: False
        async with opened(clock=clock, cameras=False):
            assert not images()
        # Where nothing was refused nothing has to be tried again.
        assert starts == [False, True, False]

    run(work())


def test_locked_images_do_not_keep_the_others(opened, run, clock, store, images) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            keys = noted(application, clock, 3 * PATIENCE)
            locked = {*keys[: PATIENCE + 20], keys[-1]}
            store.locked = locked.__contains__
            removal = removal_of(application, clock)
            assert removal.remove() == 0
            assert len(set(store.asked)) == PATIENCE
            # On behind them, then from the first again.
            assert removal.remove() == len(keys) - len(locked)
            assert images() == waiting(application) == locked
            store.locked = lambda _: False
            assert [removal.remove() for _ in range(3)] == [PATIENCE + 21, 0, 0]
            assert images() == waiting(application) == set()

    run(work())


def test_only_refusals_in_a_row_end_a_pass(opened, run, clock, store, images) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            keys = noted(application, clock, 2 * PATIENCE + 40)
            locked = set(keys[::2])
            store.locked = locked.__contains__
            assert removal_of(application, clock).remove() == len(keys) - len(locked)
            assert images() == waiting(application) == locked

    run(work())


def test_a_gallery_whose_images_are_locked_holds_no_other_back(opened, run, clock, store) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            locked = set(noted(application, clock, 12 * PATIENCE, "b"))
            store.locked = locked.__contains__
            others = [
                key for name in ("a", "b-1", "B", "z") for key in noted(application, clock, 3, name)
            ]
            removal = removal_of(application, clock)
            assert removal.remove() + removal.remove() == len(others)
            assert waiting(application) == locked
            # Those of the gallery have their turns, too, some in each pass.
            store.asked.clear()
            for _ in range(15):
                assert removal.remove() == 0
            assert set(store.asked) == locked
            new = noted(application, clock, 3, "b-2") + noted(application, clock, 3, "bc")
            assert removal.remove() + removal.remove() == len(new)
            store.locked = lambda _: False
            assert sum(removal.remove() for _ in range(3)) == len(locked)
            assert waiting(application) == set()

    run(work())


def test_a_store_that_is_away_is_waited_for_a_few_times_and_named_once(
    opened, run, clock, monkeypatch, caplog
) -> None:
    seconds, asked = [0.0], list[str]()

    def away(_: object, keys: object) -> None:
        asked.append("several" if isinstance(keys, list) else "one")
        seconds[0] += 5.0
        raise OSError("no route to host")

    async def work() -> None:
        async with opened(clock=clock) as application:
            noted(application, clock, 3 * AT_A_TIME)
            monkeypatch.setattr(FolderBlobStore, "delete_all", away)
            monkeypatch.setattr(FolderBlobStore, "delete", away)
            removal = removal_of(application, clock, elapsed=lambda: seconds[0])
            assert removal.remove() == 0
            assert asked == ["several"] + ["one"] * int(PATIENCE_SECONDS / 5)
            monkeypatch.undo()

    with caplog.at_level(logging.WARNING, "service.application.image_removal"):
        run(work())
    assert [record.levelname for record in caplog.records if "no route" in record.message] == [
        "WARNING",
        "ERROR",
    ]


def test_several_that_fail_are_told_once_a_pass(opened, run, clock, store, caplog) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            keys = noted(application, clock, 4 * AT_A_TIME)
            store.locked = set(keys[::AT_A_TIME]).__contains__
            assert removal_of(application, clock).remove() == len(keys) - 4

    with caplog.at_level(logging.WARNING, "service.application.image_removal"):
        run(work())
    told = [record.message for record in caplog.records]
    assert sum("one by one" in message for message in told) == 1
    assert sum("4 images of deleted crops could not be removed" in message for message in told) == 1


def test_a_process_that_ends_waits_for_a_few_images(opened, run, clock, monkeypatch) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            noted(application, clock, 200)
            removal, loop = removal_of(application, clock), asyncio.get_running_loop()
            remove = FolderBlobStore.delete_all

            def closed_meanwhile(store: FolderBlobStore, keys: Sequence[str]) -> None:
                asyncio.run_coroutine_threadsafe(removal.close(), loop).result(SECONDS)
                remove(store, keys)

            with monkeypatch.context() as patched:
                patched.setattr(FolderBlobStore, "delete_all", closed_meanwhile)
                removed = await asyncio.to_thread(removal.remove)
            assert 0 < removed <= 50
            assert len(waiting(application)) == 200 - removed

    run(work())


def test_what_is_ingested_or_belongs_to_a_crop_is_left_alone(
    opened, run, at, clock, images
) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            await put(application, at(0), b"stored")
            (stored,) = images()
            flying, _ = noted(application, clock, 2)
            # Stored again, with the same image, after it was deleted.
            note(application, [{"blob_key": stored, "create_time": clock.now()}])
            in_flight = BlobsInFlight()
            removal = removal_of(application, clock, in_flight)
            with in_flight.holding(image_of_key(flying)):
                assert removal.remove() == 1
                assert images() == {stored, flying}
                assert waiting(application) == {flying}
            assert removal.remove() == 1
            assert images() == {stored}
            (crop,) = (await application.crops.list("")).items
            assert (await application.crops.get("", str(crop.crop_id), True)).image == b"stored"

    run(work())


def test_several_at_once_remove_each_image_and_fail_at_none(opened, run, clock, images) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            keys = noted(application, clock, 500)
            with ThreadPoolExecutor(4) as threads:
                removals = [removal_of(application, clock) for _ in range(4)]
                done = list(threads.map(ImageRemoval.remove, removals))
            assert sum(done) >= len(keys)
            assert images() == waiting(application) == set()

    run(work())
