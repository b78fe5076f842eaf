"""Two applications on one PostgreSQL follow each other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from sqlalchemy import text

from resight.errors import NotFound, Unavailable
from service.application.application import Application
from service.application.bell import Bell
from service.application.ingest import IngestItem, Outcome
from service.application.membership import Membership
from service.domain.crop import Camera
from service.domain.query import SearchQuery

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)

PATIENCE = 120.0
STORED = text(
    "SELECT c.crop_id, e.vector FROM crops c JOIN embeddings e USING (crop_row)"
    " JOIN galleries g USING (gallery_row) WHERE g.name = :name"
)

Together = Callable[..., Any]


@pytest.fixture
def replica(opened: Callable, tmp_path: Path) -> Callable[..., Any]:
    """`async with replica("a") as a:`; images in one blob store."""

    def open_replica(name: str, *, cameras: bool = False, **replicas: Any) -> Any:
        return opened(
            cameras=cameras,
            data_dir=tmp_path / name,
            blob_url=f"file://{tmp_path}/blobs",
            replicas={"name": name, **replicas},
        )

    return open_replica


@pytest.fixture
def both(replica: Callable) -> Together:
    """`async with both() as (a, b):`"""

    @asynccontextmanager
    async def open_both(**replicas: Any) -> AsyncIterator[tuple[Application, Application]]:
        async with replica("a", cameras=True, **replicas) as a, replica("b", **replicas) as b:
            yield a, b

    return open_both


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await holds_now(holds):  # noqa: ASYNC110 -- what is waited for tells nobody
            await asyncio.sleep(0.005)


async def holds_now(holds: Callable[[], Awaitable[bool]]) -> bool:
    """No while a fence is closed: a busy machine may hold heartbeats up for a short expiry."""
    try:
        return await holds()
    except Unavailable as error:
        if error.reason != "INDEX_STALE":
            raise
        return False


async def ids_found(application: Application, image: bytes, **query: Any) -> list[UUID]:
    answer = await application.search.search(SearchQuery(image=image, top_k=1000, **query))
    return [match.crop.crop_id for match in answer.matches]


def item(number: int, at: Callable, camera: str = "c1", gallery: str = "") -> IngestItem:
    return IngestItem(gallery, camera, at(number), f"crop {number}".encode())


def hold_follower(application: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log is not followed any more, while heartbeats go on."""
    log = application.replication._membership
    monkeypatch.setattr(log, "newest", dict)


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


def test_a_silent_replica_is_not_waited_for_and_does_not_serve(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    expire = 0.8

    async def work() -> None:
        settings = {"heartbeat_seconds": 0.1, "expire_seconds": expire, "erasure_wait_seconds": 5}
        async with both(**settings) as (a, b):
            stored = await a.ingest.submit(item(0, at))
            kept = await a.ingest.submit(item(1, at))

            async def found() -> bool:
                return {stored.crop_id, kept.crop_id} == set(await ids_found(b, b"x"))

            await eventually(found)
            with monkeypatch.context() as patch:
                hold_follower(b, patch)
                patch.setattr(b.replication._membership, "beat", lambda: 1 / 0)
                assert await a.crops.delete("", str(stored.crop_id)) == ()
                # Its index still has the crop, and nothing is answered from it.
                assert len(b._galleries.get("").serving.index) == 2
                for refused in (
                    b.search.search(SearchQuery(image=b"x")),
                    b.crops.get("", str(kept.crop_id)),
                    b.crops.list(""),
                ):
                    with pytest.raises(Unavailable) as caught:
                        await refused
                    assert caught.value.reason == "INDEX_STALE"
                (batch,) = await b.search_batch.search([SearchQuery(image=b"x")])
                assert isinstance(batch, Unavailable)
                assert not b.replication.fence.is_open

            async def only_kept() -> bool:
                assert await ids_found(b, b"x") == [kept.crop_id]
                return True

            await eventually(only_kept)

    run(work())


def test_heartbeats_without_catching_up_do_not_open_the_fence(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with both(heartbeat_seconds=0.05, expire_seconds=0.3) as (a, b):
            with monkeypatch.context() as patch:
                patch.setattr(b._galleries.get(""), "follow", lambda: 1 / 0)
                beat = b.replication._membership.beat
                patch.setattr(b.replication._membership, "beat", lambda: 1 / 0)
                await asyncio.sleep(0.5)
                stored = await a.ingest.submit(item(0, at))
                patch.setattr(b.replication._membership, "beat", beat)
                await asyncio.sleep(0.5)
                assert not b.replication.fence.is_open

            async def found() -> bool:
                return await ids_found(b, b"x") == [stored.crop_id]

            await eventually(found)

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


@pytest.mark.parametrize("seed", range(3))
def test_both_end_as_the_catalog_whatever_both_did_at_the_same_time(
    both: Together, run: Callable, at: Callable, vectors: Callable, query: Callable, seed: int
) -> None:
    async def client(application: Application, chance: random.Random, base: int) -> None:
        mine: list[UUID] = []
        for step in range(60):
            gallery = chance.choice(["", "second"])
            if mine and chance.random() < 0.3:
                name, crop_id = mine.pop(chance.randrange(len(mine)))
                assert await application.crops.delete(name, str(crop_id)) == ()
                continue
            result = await application.ingest.submit(item(base + step, at, gallery=gallery))
            assert result.outcome is Outcome.ACCEPTED, result
            mine.append((gallery, result.crop_id))

    async def work() -> None:
        async with both() as (a, b):
            await a.cameras.create("second", Camera("c1"))

            async def known() -> bool:
                return {g.name for g in b._galleries.all()} == {"default", "second"} and all(
                    "c1" in g.cameras for g in b._galleries.all()
                )

            await eventually(known)
            await asyncio.gather(
                *(
                    client(application, random.Random(f"{seed} {number}"), number * 1000)
                    for number, application in enumerate([a, b] * 3)
                )
            )
            newest = dict(query("SELECT name, position FROM galleries"))

            async def even() -> bool:
                return all(
                    application._galleries.get(name).applied == position
                    for application in (a, b)
                    for name, position in newest.items()
                )

            await eventually(even)
            probe = vectors(b"anybody")
            for name in newest:
                stored = {
                    UUID(bytes=bytes(crop_id)): np.frombuffer(bytes(vector), "<f4")
                    for crop_id, vector in query(STORED.bindparams(name=name))
                }
                assert len(stored) > 20
                scores = {
                    crop_id: float(vector.astype(np.float64) @ probe.astype(np.float64))
                    for crop_id, vector in stored.items()
                }
                ranked = sorted(stored, key=lambda crop_id: -scores[crop_id])
                for application in (a, b):
                    assert await ids_found(application, b"anybody", gallery=name) == ranked

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


def test_a_gallery_that_cannot_be_opened_closes_no_other_and_delays_no_erasure(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        settings = {"heartbeat_seconds": 0.1, "expire_seconds": 0.5}
        async with both(**settings, erasure_wait_seconds=PATIENCE) as (a, b):
            with monkeypatch.context() as patch:
                patch.setattr(b._galleries, "discover", lambda: 1 / 0)
                await a.cameras.create("site", Camera("c1"))
                stored = await a.ingest.submit(item(0, at, gallery="site"))
                assert await a.crops.delete("site", str(stored.crop_id)) == ()
                left = await a.ingest.submit(item(1, at, gallery="site"))
                with patch.context() as silent:
                    silent.setattr(b.replication._membership, "beat", lambda: 1 / 0)
                    await asyncio.sleep(0.6)
                    assert not b.replication.fence.is_open

                async def open_again() -> bool:
                    return b.replication.fence.is_open

                await eventually(open_again)

            async def found() -> bool:
                try:
                    return await ids_found(b, b"x", gallery="site") == [left.crop_id]
                except NotFound:
                    return False

            await eventually(found)

    run(work())


def test_replicas_that_start_together_on_an_empty_catalog(
    replica: Callable, run: Callable, at: Callable
) -> None:
    async def work() -> None:
        async def start(name: str) -> None:
            async with replica(name, cameras=True) as application:
                made = [application.cameras.create(f"g{n}", Camera("c1")) for n in range(20)]
                await asyncio.gather(*made)
                stored = await application.ingest.submit(item(0, at, gallery="g7"))
                assert stored.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)

        await asyncio.gather(*(start(name) for name in "abcd"))

    run(work())


async def found_on(reader: Application, stored: UUID) -> None:
    async def found() -> bool:
        try:
            return stored in await ids_found(reader, b"x")
        except Unavailable:
            return False

    await eventually(found)


def test_a_replica_is_told_of_changes_and_does_not_wait_for_its_next_look(
    both: Together, run: Callable, at: Callable
) -> None:
    async def work() -> None:
        async with both(poll_seconds=60) as (a, b):
            # Listening begins with the first wait.
            await asyncio.sleep(0.5)
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
                broken = query(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
                assert broken[0][0] >= 4

                async def stored(number: int = number) -> bool:
                    result = await a.ingest.submit(item(number, at))
                    return result.outcome in (Outcome.ACCEPTED, Outcome.DUPLICATE)

                await eventually(stored)
                result = await a.ingest.submit(item(number, at))
                await found_on(b, result.crop_id)
                await found_on(a, result.crop_id)

    run(work())
