"""A replica out of touch with the catalog serves nothing and is not waited for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from resight.errors import NotFound, Unavailable
from service.application.application import Application
from service.domain.crop import Camera
from service.domain.query import SearchQuery
from tests.service.application.replication.two_replicas import (
    Together,
    eventually,
    hold_follower,
    ids_found,
    item,
)

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


def closed(application: Application) -> Callable[[], Awaitable[bool]]:
    """Whether the fence is closed."""

    async def is_closed() -> bool:
        return not application.replication.fence.is_open

    return is_closed


def test_a_silent_replica_is_not_waited_for_and_does_not_serve(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with both(heartbeat_seconds=0.1, expire_seconds=0.8) as (a, b):
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
        async with both(heartbeat_seconds=0.05, expire_seconds=0.5) as (a, b):
            fence = b.replication.fence
            tried: list[int] = []

            def follow() -> None:
                tried.append(fence.term)
                raise RuntimeError("not now")

            with monkeypatch.context() as patch:
                patch.setattr(b._galleries.get(""), "follow", follow)
                with patch.context() as silent:
                    silent.setattr(b.replication._membership, "beat", lambda: 1 / 0)
                    await eventually(closed(b))
                    stored = await a.ingest.submit(item(0, at))
                    before = fence.term

                async def tried_in_vain() -> bool:
                    # The second began after the first, in the new term.
                    return sum(term > before for term in tried) >= 2

                await eventually(tried_in_vain)
                assert not fence.is_open

            async def found() -> bool:
                return await ids_found(b, b"x") == [stored.crop_id]

            await eventually(found)

    run(work())


def test_a_gallery_that_cannot_be_opened_closes_no_other_and_delays_no_erasure(
    both: Together, run: Callable, at: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with both(heartbeat_seconds=0.1, expire_seconds=0.5) as (a, b):
            with monkeypatch.context() as patch:
                patch.setattr(b._galleries, "discover", lambda: 1 / 0)
                await a.cameras.create("site", Camera("c1"))
                stored = await a.ingest.submit(item(0, at, gallery="site"))
                assert await a.crops.delete("site", str(stored.crop_id)) == ()
                left = await a.ingest.submit(item(1, at, gallery="site"))
                with patch.context() as silent:
                    silent.setattr(b.replication._membership, "beat", lambda: 1 / 0)
                    await eventually(closed(b))

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
