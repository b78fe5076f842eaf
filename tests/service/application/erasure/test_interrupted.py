"""An erasure that its process did not finish: listing, and carrying out."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from resight.errors import Unavailable
from service.domain.erasure import CameraSubject, ErasureState


def test_a_list_that_was_never_finished_is_forgotten(
    opened, run, ingested, query, clock, monkeypatch
) -> None:
    async def work() -> None:
        async with opened(clock=clock) as application:
            await ingested(application, 6)
            reached = asyncio.Event()

            async def endless(*_: object) -> None:
                reached.set()
                await asyncio.Event().wait()

            with monkeypatch.context() as patched:
                patched.setattr(application.erasures, "_fill", endless)
                planning = asyncio.create_task(
                    application.erasures.plan("", CameraSubject("c1"), "case 7")
                )
                await reached.wait()
                assert (await application.erasures.list("")).items == []
                # As if the process had been killed: nobody discards it.
                patched.setattr(application.erasures, "_discard", lambda _: asyncio.sleep(0))
                planning.cancel()
                with suppress(asyncio.CancelledError):
                    await planning
            assert query("select state from erasures") == [("listing",)]
            await application.erasures.discard_stale()
            assert query("select count(*) from erasures") == [(1,)], "somebody may be at it"
            clock.pass_seconds(3601)
            await application.erasures.discard_stale()
            assert query("select count(*) from erasures") == [(0,)]

    run(work())


def test_the_next_start_goes_on_by_itself(opened, run, ingested, left) -> None:
    governance = {"erasure_batch_crops": 1}

    async def work() -> None:
        async with opened(governance=governance) as application:
            ids = await ingested(application, 30)
            made = await application.erasures.plan("", CameraSubject("c1"), "case 7")
            confirming = asyncio.create_task(
                application.erasures.confirm("", str(made.erasure_id), crops=10)
            )
            while len(left(application)["rows"]) > 27:  # noqa: ASYNC110
                await asyncio.sleep(0)
            application.erasing.stop()
            with pytest.raises(Unavailable, match="stopping"):
                await confirming
            assert 20 < len(left(application)["rows"]) <= 27
        async with opened(governance=governance, cameras=False) as application:
            name = str(made.erasure_id)
            for _ in range(12_000):
                found = await application.erasures.get("", name)
                if found.state is ErasureState.DONE:
                    break
                await asyncio.sleep(0.01)
            assert (found.state, found.removed) == (ErasureState.DONE, 10)
            kept = set(ids) - set(ids[::3])
            assert all(left(application)[place] == kept for place in ("rows", "images", "index"))

    run(work())
