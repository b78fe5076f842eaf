"""When travel times are learned, how much is looked at, and who waits."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import numpy as np
import pytest

from resight.errors import DeadlineExceeded, NotFound
from service.application import travel_times
from service.application.ingest import IngestItem
from service.domain.crop import Camera
from service.retrieval.travel_times import learned


async def walk(application: Any, at: Any, people: int, *, first: int = 0) -> None:
    """Each from camera c1 to c2 in 30 seconds, one every 100 seconds."""
    for person in range(first, first + people):
        for camera, after in (("c1", 0), ("c2", 30)):
            item = IngestItem("", camera, at(100 * person + after), b"person %d" % person)
            await application.ingest.submit(item)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was compared, each time; the first comparison waits for its event."""
    seen: list[Any] = []

    def recorded(tracks: Any, **told: Any) -> Any:
        seen.append(tracks)
        return learned(tracks, **told)

    monkeypatch.setattr(travel_times, "learned", recorded)
    return seen


def test_the_newest_crops_and_tracks_are_looked_at(opened, run, at, looks) -> None:
    async def work() -> None:
        bounds = {"max_crops": 110, "max_tracks": 100, "min_matches": 10}
        async with opened(travel_times=bounds) as application:
            await walk(application, at, 60)
            table = await application.travel_times.learn("")
            assert (table.crops, table.tracks) == (110, 100)
            newest = sorted(100 * person + after for person in range(60) for after in (0, 30))
            zero = np.datetime64(at(0).replace(tzinfo=None), "us").astype(np.int64)
            assert ((looks[0].starts - zero) // 10**6).tolist() == newest[-100:]
            (pair,) = table.pairs
            assert (pair.from_camera_id, pair.to_camera_id) == ("c1", "c2")
            # Half of the pairs best for each other: those at the score's median and above.
            assert pair.matches >= 25
            assert table.lowest_probability is None
            assert application.travel_times.get("") == table

    run(work())


def test_whoever_asks_meanwhile_shares_the_answer(opened, run, at, looks) -> None:
    async def work() -> None:
        async with opened() as application:
            await walk(application, at, 5)
            found = await asyncio.gather(*(application.travel_times.learn("") for _ in range(6)))
            assert len(looks) == 1
            assert all(table is found[0] for table in found)
            await application.travel_times.learn("")
            assert len(looks) == 2

    run(work())


def test_an_old_table_is_learned_again_behind_the_answer(opened, run, at, looks) -> None:
    async def work() -> None:
        async with opened(travel_times={"refresh_seconds": 0}) as application:
            await walk(application, at, 5)
            first = await application.travel_times.recent("")
            await walk(application, at, 3, first=5)
            assert await application.travel_times.recent("") is first, "nobody waits"
            second = await application.travel_times.learn("")
            assert (len(looks), second.crops) == (2, 16), "it was under way"
            assert application.travel_times.get("") is second

    run(work())


def test_a_young_table_is_left_alone(opened, run, at, looks) -> None:
    async def work() -> None:
        async with opened() as application:
            await walk(application, at, 5)
            first = await application.travel_times.recent("")
            assert await application.travel_times.recent("") is first
            await asyncio.sleep(0.05)
            assert len(looks) == 1

    run(work())


def test_a_deadline_is_kept_and_the_work_is_not_lost(opened, run, at, monkeypatch) -> None:
    free = threading.Event()

    def waiting(*arguments: Any, **told: Any) -> Any:
        assert free.wait(120)
        return learned(*arguments, **told)

    monkeypatch.setattr(travel_times, "learned", waiting)

    async def work() -> None:
        async with opened() as application:
            await walk(application, at, 5)
            with pytest.raises(DeadlineExceeded):
                await application.travel_times.learn("", deadline=time.monotonic() + 0.05)
            with pytest.raises(NotFound, match="learn"):
                application.travel_times.get("")
            free.set()
            assert (await application.travel_times.learn("")).crops == 10

    run(work())


def test_an_end_does_not_wait_for_what_is_left_to_learn(
    opened, run, at, monkeypatch, caplog
) -> None:
    begun, free = threading.Event(), threading.Event()

    def waiting(*arguments: Any, **told: Any) -> Any:
        begun.set()
        assert free.wait(120)
        return learned(*arguments, **told)

    monkeypatch.setattr(travel_times, "learned", waiting)

    async def work() -> None:
        async with opened() as application:
            await walk(application, at, 5)
            await application.cameras.create("other", Camera("c1"))
            one = asyncio.create_task(application.travel_times.learn(""))
            assert await asyncio.to_thread(begun.wait, 120)
            two = asyncio.create_task(application.travel_times.learn("other"))
            await asyncio.sleep(0.05)
            # The comparison under way ends after the end has begun.
            threading.Timer(1.0, free.set).start()
        for task in (one, two):
            with pytest.raises(asyncio.CancelledError):
                await task
        assert "could not be learned" not in caplog.text

    run(work())


def test_a_failure_is_told_and_can_be_tried_again(opened, run, at, monkeypatch, caplog) -> None:
    async def work() -> None:
        async with opened() as application:
            await walk(application, at, 5)

            def failing(*_: Any, **__: Any) -> Any:
                raise MemoryError

            monkeypatch.setattr(travel_times, "learned", failing)
            with pytest.raises(MemoryError):
                await application.travel_times.learn("")
            assert "could not be learned" in caplog.text
            monkeypatch.setattr(travel_times, "learned", learned)
            assert (await application.travel_times.learn("")).tracks == 10

    run(work())


def test_an_empty_gallery_and_an_unknown_one(opened, run) -> None:
    async def work() -> None:
        async with opened() as application:
            table = await application.travel_times.learn("")
            assert (list(table.pairs), table.crops, table.tracks) == ([], 0, 0)
            for ask in (application.travel_times.learn, application.travel_times.recent):
                with pytest.raises(NotFound):
                    await ask("nowhere")
            with pytest.raises(NotFound):
                application.travel_times.get("nowhere")

    run(work())
