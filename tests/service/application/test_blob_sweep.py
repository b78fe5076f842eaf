"""Images of no crop are removed, and never one that somebody has in flight."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from service.application.blob_sweep import BlobsInFlight, sweep
from service.application.ingest import IngestItem, Outcome
from service.domain.crop import Camera
from service.domain.identifier import image_key, uuid7

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


@pytest.fixture
def replica(opened: Callable, tmp_path: Path) -> Callable[..., Any]:
    def open_replica(name: str, **replicas: Any) -> Any:
        return opened(
            cameras=False,
            data_dir=tmp_path / name,
            blob_url=f"file://{tmp_path}/blobs",
            replicas={"name": name, **replicas},
        )

    return open_replica


@asynccontextmanager
async def ingest_held(application: Any, item: IngestItem) -> AsyncIterator[Callable[[], Any]]:
    """An ingest that has written its image and waits to be committed: `await finish()`."""
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(60)

    before = set(application._blobs.keys())
    holding = asyncio.create_task(application._catalog.run(hold))
    await asyncio.to_thread(begun.wait, 60)
    task = asyncio.create_task(application.ingest.submit(item))

    async def finish() -> Any:
        go_on.set()
        return await task

    try:
        async with asyncio.timeout(120):
            while application.pending_writes == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert len(set(application._blobs.keys()) - before) == 1
        yield finish
    finally:
        go_on.set()
        await holding


def put_orphan(application: Any, clock: Any) -> str:
    key = image_key("default", uuid7(clock.now()))
    application._blobs.put(key, b"left by a crash")
    return key


def test_an_image_in_flight_elsewhere_survives_the_start_of_another_replica(
    replica: Callable, run: Callable, at: Callable, clock: Any
) -> None:
    async def work() -> None:
        async with replica("a") as a:
            await a.sweeping.finished()
            await a.cameras.create("", Camera("c1"))
            orphan = put_orphan(a, clock)
            async with ingest_held(a, IngestItem("", "c1", at(0), b"image")) as finish:
                (in_flight,) = set(a._blobs.keys()) - {orphan}
                async with replica("b", sweep_seconds=3600) as b:
                    await asyncio.sleep(0.3)
                    assert {orphan, in_flight} == set(a._blobs.keys())
                stored = await finish()
            async with replica("b", sweep_seconds=1) as b:
                assert stored.outcome is Outcome.ACCEPTED
                await b.sweeping.finished()
                assert b.sweeping.report.orphans == 1
                assert set(a._blobs.keys()) == {in_flight}
                found = await b.crops.get("", str(stored.crop_id), include_image=True)
                assert found.image == b"image"

    run(work())


def test_a_process_that_is_alone_sweeps_at_once(
    replica: Callable, run: Callable, clock: Any
) -> None:
    async def work() -> None:
        async with replica("a") as a:
            orphan = put_orphan(a, clock)
        async with replica("a") as a:
            await a.sweeping.finished()
            assert orphan not in set(a._blobs.keys())

    run(work())


def test_a_crashed_process_takes_its_own_place(
    replica: Callable, run: Callable, clock: Any, query: Callable
) -> None:
    async def work() -> None:
        async with replica("a") as a:
            known = query("SELECT replica_id FROM replicas")
            a.replication._membership.close = lambda: None
            orphan = put_orphan(a, clock)
        assert query("SELECT replica_id FROM replicas") == known, "as after kill -9"
        async with replica("a") as a:
            assert a.replication.is_alone()
            await a.sweeping.finished()
            assert orphan not in set(a._blobs.keys())
            assert query("SELECT replica_id FROM replicas") == known

    run(work())


def test_an_image_swept_while_its_process_was_held_for_dead_is_written_again(
    replica: Callable, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        settings = {"heartbeat_seconds": 0.1, "expire_seconds": 0.5}
        async with replica("a", **settings) as a:
            await a.cameras.create("", Camera("c1"))
            await a.sweeping.finished()
            beat = a.replication._membership.beat
            monkeypatch.setattr(a.replication._membership, "beat", lambda: 1 / 0)
            async with ingest_held(a, IngestItem("", "c1", at(0), b"image")) as finish:
                (key,) = a._blobs.keys()
                await asyncio.sleep(0.7)
                async with replica("b", **settings) as b:
                    assert b.replication.is_alone()
                    await b.sweeping.finished()
                    assert list(a._blobs.keys()) == []
                # It is heard of again before the commit: the lapse counts all the same.
                monkeypatch.setattr(a.replication._membership, "beat", beat)
                while not a.replication.fence.is_open:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                stored = await finish()
            async with replica("b") as b:
                assert stored.outcome is Outcome.ACCEPTED
                assert list(a._blobs.keys()) == [key]
                found = await b.crops.get("", str(stored.crop_id), include_image=True)
                assert found.image == b"image"

    run(work())


def test_a_sweep_that_must_wait_ends_with_its_process(
    replica: Callable, run: Callable, clock: Any
) -> None:
    async def work() -> None:
        async with replica("a") as a:
            await a.sweeping.finished()
            orphan = put_orphan(a, clock)
            async with replica("b", sweep_seconds=3600) as b:
                await asyncio.sleep(0.1)
                assert b.sweeping.report is None
            assert orphan in set(a._blobs.keys())

    run(work())


def test_who_commits_and_ends_while_it_is_asked_who_is_there_keeps_its_image(
    replica: Callable, run: Callable, at: Callable
) -> None:
    async def work() -> None:
        async with replica("a") as a:
            await a.sweeping.finished()
            await a.cameras.create("", Camera("c1"))
            loop = asyncio.get_running_loop()
            async with ingest_held(a, IngestItem("", "c1", at(0), b"image")) as finish:

                def others_end() -> bool:
                    asyncio.run_coroutine_threadsafe(finish(), loop).result()
                    return True

                report = await asyncio.to_thread(
                    sweep, a._catalog, a._blobs, BlobsInFlight(), is_alone=others_end
                )
                assert (report.images, report.orphans) == (1, 0)
                crop_id = str((await finish()).crop_id)
            assert (await a.crops.get("", crop_id, include_image=True)).image == b"image"

    run(work())
