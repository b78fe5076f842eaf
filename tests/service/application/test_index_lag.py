"""An answer says for how long the index has been behind the catalog."""

from __future__ import annotations

import asyncio

import pytest

from service.application.ingest import IngestItem
from service.domain.query import SearchQuery


def test_an_answer_tells_of_a_change_that_waits(opened, run, at, monkeypatch) -> None:
    async def lag(application) -> float:
        return (await application.search.search(SearchQuery(image=b"q"))).index_lag_seconds

    async def work() -> None:
        async with opened() as application:
            gallery = application._galleries.get("")
            assert await lag(application) == 0
            with monkeypatch.context() as patch:
                patch.setattr(gallery.serving.index, "add", lambda _: 1 / 0)
                await application.ingest.submit(IngestItem("", "c1", at(0), b"waits"))
                await asyncio.sleep(0.02)
                first = await lag(application)
                assert first >= 0.02
                await asyncio.sleep(0.02)
                assert await lag(application) >= first + 0.02
                with pytest.raises(ZeroDivisionError):
                    await application._catalog.run(gallery.follow)
                assert await lag(application) >= first + 0.02
            await application._catalog.run(gallery.follow)
            assert await lag(application) == 0
            answer = await application.search.search(SearchQuery(image=b"waits"))
            assert answer.matches[0].score == pytest.approx(1)

    run(work())
