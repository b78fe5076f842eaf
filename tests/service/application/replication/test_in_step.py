"""What one replica stores, the others have soon, by being told or by looking."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from resight.errors import NotFound
from service.application.bell import Bell
from service.application.ingest import Outcome
from service.domain.crop import Camera
from service.domain.query import SearchQuery
from tests.service.application.replication.two_replicas import (
    Together,
    eventually,
    found_on,
    ids_found,
    item,
)

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

CONNECTIONS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def test_what_one_ingests_the_other_finds(both: Together, run: Callable, at: Callable) -> None:
    async def work() -> None:
        async with both() as (a, b):
            for number, (writer, reader) in enumerate([(a, b), (b, a)]):
                stored = await writer.ingest.submit(item(number, at))
                assert stored.outcome is Outcome.ACCEPTED
                image = item(number, at).image

                async def found(reader=reader, image=image, stored=stored) -> bool:
                    return stored.crop_id in await ids_found(reader, image)

                await eventually(found)
                crop = await reader.crops.get("", str(stored.crop_id), include_image=True)
                assert crop.image == image
                again = await reader.ingest.submit(item(number, at))
                assert (again.outcome, again.crop_id) == (Outcome.DUPLICATE, stored.crop_id)

    run(work())


def test_cameras_and_galleries_made_on_one_are_used_on_the_other(
    both: Together, run: Callable, at: Callable
) -> None:
    async def work() -> None:
        async with both() as (a, b):
            await b.cameras.create("", Camera("c9"))
            await b.cameras.create("site", Camera("door"))

            async def known() -> bool:
                try:
                    return "c9" in a._galleries.get("").cameras and bool(
                        a._galleries.get("site").cameras
                    )
                except NotFound:
                    return False

            await eventually(known)
            here = await a.ingest.submit(item(0, at, camera="c9"))
            there = await a.ingest.submit(item(1, at, camera="door", gallery="site"))
            assert (here.outcome, there.outcome) == (Outcome.ACCEPTED, Outcome.ACCEPTED)

            async def found() -> bool:
                return await ids_found(b, b"x", gallery="site") == [there.crop_id]

            await eventually(found)

    run(work())


def test_a_replica_is_told_of_changes_and_does_not_wait_for_its_next_look(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        wait = Bell.wait
        monkeypatch.setattr(Bell, "wait", lambda bell, _, stopping: wait(bell, 3600, stopping))
        async with both() as (a, b):

            async def listening() -> bool:
                return b.replication._membership.bell._listening is not None

            await eventually(listening)
            for number in range(3):
                stored = await a.ingest.submit(item(number, at))
                await found_on(b, stored.crop_id)

    run(work())


def test_a_replica_that_is_told_nothing_finds_changes_by_looking(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(Bell, "wait", lambda _, seconds, stopping: stopping.wait(seconds))
        async with both() as (a, b):
            stored = await a.ingest.submit(item(0, at))
            await found_on(b, stored.crop_id)

    run(work())


def test_replicas_whose_connections_are_broken_go_on(
    both: Together, run: Callable, at: Callable, query: Callable
) -> None:
    async def work() -> None:
        async with both() as (a, b):
            for number in range(3):

                async def connected() -> bool:
                    return query(f"SELECT count(*) {CONNECTIONS}")[0][0] >= 4

                await eventually(connected)
                assert query(f"SELECT count(pg_terminate_backend(pid)) {CONNECTIONS}")[0][0]

                async def stored(number: int = number) -> bool:
                    result = await a.ingest.submit(item(number, at))
                    return result.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)

                await eventually(stored)
                result = await a.ingest.submit(item(number, at))
                await found_on(b, result.crop_id)
                await found_on(a, result.crop_id)

    run(work())


def test_lag_is_told_while_the_log_cannot_be_read(
    both: Together, run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with both() as (_, b):
            gallery = b._galleries.get("")

            async def none() -> bool:
                return gallery.index_lag_seconds == 0

            await eventually(none)
            with monkeypatch.context() as patch:
                patch.setattr(b.replication._membership, "newest", lambda: 1 / 0)

                async def lags() -> bool:
                    answer = await b.search.search(SearchQuery(image=b"x"))
                    return answer.index_lag_seconds > 0.3

                await eventually(lags)
            await eventually(none)

    run(work())
