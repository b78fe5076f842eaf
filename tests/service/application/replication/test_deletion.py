"""A deletion waits for the replicas that live, and says who has not caught up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from service.application.membership import Membership
from tests.service.application.replication.two_replicas import (
    Together,
    eventually,
    hold_follower,
    ids_found,
    item,
)

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def test_a_deletion_is_acknowledged_when_it_is_gone_everywhere(
    both: Together, run: Callable, at: Callable
) -> None:
    async def work() -> None:
        async with both() as (a, b):
            stored = [await a.ingest.submit(item(number, at)) for number in range(30)]

            async def all_there() -> bool:
                return len(b._galleries.get("").serving.index) == 30

            await eventually(all_there)
            for number, result in enumerate(stored):
                here, there = (a, b) if number % 2 else (b, a)
                assert await here.crops.delete("", str(result.crop_id)) == ()
                # In the index itself, not only hidden by the catalog.
                for application in (here, there):
                    index = application._galleries.get("").serving.index
                    assert index.vectors_of([result.crop_id])[0].size == 0

    run(work())


def test_the_receipt_names_who_has_not_caught_up(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with both(erasure_wait_seconds=0.4) as (a, b):
            stored = await a.ingest.submit(item(0, at))

            async def found() -> bool:
                return stored.crop_id in await ids_found(b, b"x")

            await eventually(found)
            with monkeypatch.context() as patch:
                hold_follower(b, patch)
                assert await a.crops.delete("", str(stored.crop_id)) == ("b",)

            async def gone() -> bool:
                return len(b._galleries.get("").serving.index) == 0

            await eventually(gone)

    run(work())


def test_own_index_that_failed_is_named_and_tried_again(
    opened: Callable, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with opened(replicas={"name": "only", "erasure_wait_seconds": 0.3}) as application:
            stored = await application.ingest.submit(item(0, at))
            gallery = application._galleries.get("")
            with monkeypatch.context() as patch:
                patch.setattr(gallery.serving.index, "remove", lambda _: 1 / 0)
                assert await application.crops.delete("", str(stored.crop_id)) == ("only",)

            async def gone() -> bool:
                return len(gallery.serving.index) == 0 and gallery.index_lag_seconds == 0

            await eventually(gone)

    run(work())


def test_what_is_erased_while_a_replica_starts_is_never_served_by_it(
    both: Together, replica: Callable, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the filling of its index and its registration nobody waits for it."""

    async def work() -> None:
        async with replica("a", cameras=True) as a:
            gone = await a.ingest.submit(item(0, at))
            kept = await a.ingest.submit(item(1, at))
            loop = asyncio.get_running_loop()
            register = Membership.register

            def late(membership: Membership) -> None:
                deletion = a.crops.delete("", str(gone.crop_id))
                pending = asyncio.run_coroutine_threadsafe(deletion, loop).result()
                assert pending == (), "it is not known yet"
                register(membership)

            monkeypatch.setattr(Membership, "register", late)
            async with replica("b") as b:
                assert len(b._galleries.get("").serving.index) == 1
                assert await ids_found(b, b"x") == [kept.crop_id]

    run(work())


def test_the_dead_are_forgotten_and_one_who_ends_is_not_waited_for(
    both: Together, replica: Callable, run: Callable, at: Callable, query: Callable
) -> None:
    async def work() -> None:
        async with both() as (a, _):
            assert query("SELECT name FROM replicas ORDER BY name") == [("a",), ("b",)]
            stored = await a.ingest.submit(item(0, at))
            async with replica("c") as c:
                assert not c.replication.is_alone()
            assert query("SELECT count(*) FROM replicas") == [(2,)]
            assert await a.crops.delete("", str(stored.crop_id)) == ()
        async with replica("a") as a:
            assert a.replication.is_alone()
            assert query("SELECT name FROM replicas") == [("a",)]
        assert query("SELECT count(*) FROM replicas") == [(0,)]
        assert query("SELECT count(*) FROM replica_positions") == [(0,)]

    run(work())
