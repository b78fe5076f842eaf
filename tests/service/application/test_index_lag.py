"""An answer says for how long the index has been behind the catalog."""

from __future__ import annotations

import asyncio

import pytest

from service.domain.query import SearchQuery


def test_an_answer_tells_of_a_change_that_waits(opened, run) -> None:
    refusals = [MemoryError(), MemoryError()]

    def change() -> None:
        if refusals:
            raise refusals.pop()

    async def work() -> None:
        async with opened() as application:
            gallery = application._galleries.get("")
            assert (await application.search.search(SearchQuery(image=b"q"))).index_lag_seconds == 0
            with pytest.raises(MemoryError):
                gallery.apply(change)
            await asyncio.sleep(0.02)
            first = (await application.search.search(SearchQuery(image=b"q"))).index_lag_seconds
            assert first >= 0.02
            await asyncio.sleep(0.02)
            later = (await application.search.search(SearchQuery(image=b"q"))).index_lag_seconds
            assert later >= first + 0.02
            with pytest.raises(MemoryError):
                gallery.apply(lambda: None)
            gallery.apply(lambda: None)
            assert (await application.search.search(SearchQuery(image=b"q"))).index_lag_seconds == 0

    run(work())
